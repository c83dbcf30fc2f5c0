//! Certificates for one test server: made when it starts, gone with it.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// An authority, a server's and a client's certificate of it, and an authority that neither knows; as PEM files.
#[derive(Debug)]
pub(super) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub(super) fn generate() -> Self {
        let folder = TempDir::with_prefix("pythia-tls-").expect("a folder for certificates");
        let certificates = Self { folder };
        let authority = authority("pythia test authority");
        certificates.write(CA, &authority.pem());
        certificates.write(OTHER_CA, &self::authority("another authority").pem());
        // A client that connects by another name than these must refuse the server.
        let names = ["localhost", "127.0.0.1"];
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        // As a replica, the server is a client too.
        let also = ExtendedKeyUsagePurpose::ClientAuth;
        let server = [usage, also.clone()];
        certificates.issue(&authority, SERVER_CERT, SERVER_KEY, &names, &server);
        certificates.issue(&authority, CLIENT_CERT, CLIENT_KEY, &[], &[also]);
        certificates
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.path(CA)
    }

    pub(super) fn other_ca(&self) -> PathBuf {
        self.path(OTHER_CA)
    }

    pub(super) fn server_cert(&self) -> PathBuf {
        self.path(SERVER_CERT)
    }

    pub(super) fn server_key(&self) -> PathBuf {
        self.path(SERVER_KEY)
    }

    pub(super) fn client_cert(&self) -> PathBuf {
        self.path(CLIENT_CERT)
    }

    pub(super) fn client_key(&self) -> PathBuf {
        self.path(CLIENT_KEY)
    }

    fn issue(
        &self,
        authority: &CertifiedIssuer<'_, KeyPair>,
        cert_file: &str,
        key_file: &str,
        names: &[&str],
        usages: &[ExtendedKeyUsagePurpose],
    ) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("the names are plain");
        params
            .distinguished_name
            .push(DnType::CommonName, cert_file);
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        params.extended_key_usages.extend_from_slice(usages);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, authority).expect("a certificate");
        self.write(cert_file, &cert.pem());
        self.write(key_file, &key.serialize_pem());
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).expect("the certificates' folder is writable");
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::join(self.folder.path(), file)
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
}

const CA: &str = "ca.pem";
const OTHER_CA: &str = "other-ca.pem";
const SERVER_CERT: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const CLIENT_CERT: &str = "client.pem";
const CLIENT_KEY: &str = "client.key";
