//! From the settings of TLS to what fred connects by.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use fred::rustls::pki_types::pem::{Error as PemError, PemObject};
use fred::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use fred::rustls::{ClientConfig, RootCertStore, crypto::ring};
use fred::rustls_native_certs;
use fred::types::config::{HostMapping, TlsConfig as FredTls, TlsHostMapping};
use pythia_core::ConfigError;

use crate::config::TlsConfig;
use crate::url::{Place, RedisUrl};

/// Reads the files, so that a bad one is known before anything connects.
pub(super) fn connector(tls: &TlsConfig, server: &RedisUrl) -> Result<FredTls, ConfigError> {
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
        (None, None) => client.with_no_client_auth(),
        _ => {
            return Err(ConfigError::new(
                "of redis.tls.cert_file and redis.tls.key_file only one is set; a client's certificate takes both",
            ));
        }
    };
    Ok(FredTls {
        connector: client.into(),
        hostnames: names(server),
    })
}

/// A cluster names its nodes by their IP addresses, which few certificates hold: they are to show the name that the URL
/// has, whichever node is asked first.
fn names(server: &RedisUrl) -> TlsHostMapping {
    let Place::Cluster(nodes) = &server.place else {
        return TlsHostMapping::None;
    };
    let named = nodes
        .iter()
        .find(|node| node.host.parse::<IpAddr>().is_err());
    match named {
        Some(node) => TlsHostMapping::Custom(Arc::new(OneName(node.host.clone()))),
        None => TlsHostMapping::None,
    }
}

#[derive(Debug)]
struct OneName(String);

impl HostMapping for OneName {
    fn map(&self, _: &IpAddr, _: &str) -> Option<String> {
        Some(self.0.clone())
    }
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
