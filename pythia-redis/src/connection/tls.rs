//! From the settings of TLS to what fred connects by.

use std::path::Path;
use std::sync::Arc;

use fred::rustls::pki_types::pem::{Error as PemError, PemObject};
use fred::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use fred::rustls::{ClientConfig, RootCertStore, crypto::ring};
use fred::rustls_native_certs;
use fred::types::config::{TlsConfig as FredTls, TlsHostMapping};
use pythia_core::ConfigError;

use crate::config::TlsConfig;

/// Reads the files, so that a bad one is known before anything connects.
pub(super) fn connector(tls: &TlsConfig) -> Result<FredTls, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new(format!("TLS can't be used: {error}")))?
        .with_root_certificates(roots(tls)?);
    let client = match (&tls.cert_file, &tls.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates("cert_file", cert_file)?;
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| unreadable("key_file", key_file, "private key", &error))?;
            client.with_client_auth_cert(chain, key).map_err(|error| {
                ConfigError::new(format!(
                    "the certificate in redis.tls.cert_file ({}) and the key in redis.tls.key_file ({}) can't be used \
                     together: {error}",
                    cert_file.display(),
                    key_file.display()
                ))
            })?
        }
        _ => client.with_no_client_auth(),
    };
    Ok(FredTls {
        connector: client.into(),
        // A cluster names its nodes by their IP addresses, which few certificates hold.
        hostnames: TlsHostMapping::DefaultHost,
    })
}

fn roots(tls: &TlsConfig) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = &tls.ca_file else {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            return Err(ConfigError::new(
                "this system has no authorities to trust for TLS: install its package of CA certificates, or set \
                 redis.tls.ca_file",
            ));
        }
        return Ok(roots);
    };
    for certificate in certificates("ca_file", file)? {
        roots.add(certificate).map_err(|error| {
            ConfigError::new(format!(
                "a certificate in redis.tls.ca_file ({}) can't be used: {error}",
                file.display()
            ))
        })?;
    }
    Ok(roots)
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(setting, file, "certificate", &error))?;
    if certificates.is_empty() {
        let none = PemError::NoItemsFound;
        return Err(unreadable(setting, file, "certificate", &none));
    }
    Ok(certificates)
}

fn unreadable(setting: &str, file: &Path, what: &str, error: &PemError) -> ConfigError {
    let why = match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => format!("there is no {what} in PEM form in it"),
        other => other.to_string(),
    };
    ConfigError::new(format!(
        "can't read redis.tls.{setting} ({}): {why}",
        file.display()
    ))
}
