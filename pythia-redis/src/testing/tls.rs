//! A server that speaks TLS alone.

use std::path::PathBuf;
use std::sync::Arc;

use super::certificates::Certificates;
use super::server::{Launch, RedisServer};

impl RedisServer {
    /// Starts a server that listens for TLS alone, with certificates of its own making, and further settings as
    /// [`start_with`](Self::start_with) takes them.
    ///
    /// [`url`](Self::url) is `rediss://localhost:port`. The server's certificate is for `localhost` and `127.0.0.1`,
    /// signed by [`ca_file`](Self::ca_file). As redis-server does by default, it asks clients for a certificate:
    /// [`client_cert_file`](Self::client_cert_file) with [`client_key_file`](Self::client_key_file) is one it accepts,
    /// and `&["--tls-auth-clients", "no"]` lets in clients without one.
    ///
    /// ```
    /// # use pythia_redis::testing::RedisServer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let server = RedisServer::start_tls(&["--tls-auth-clients", "no"]).await;
    /// assert!(server.url().starts_with("rediss://localhost:"));
    /// assert_eq!(server.cli(&["PING"]).await, "PONG"); // over TLS
    /// # }
    /// ```
    pub async fn start_tls(settings: &[&str]) -> Self {
        Self::launch(Launch {
            settings: settings.iter().map(ToString::to_string).collect(),
            certificates: Some(Arc::new(Certificates::generate())),
            ..Launch::default()
        })
        .await
    }

    /// The certificate of the authority that has signed the server's and the client's, as a PEM file.
    pub fn ca_file(&self) -> PathBuf {
        self.certificates().ca()
    }

    /// The certificate of an authority that has signed neither: a client that trusts only this one must refuse the
    /// server.
    pub fn other_ca_file(&self) -> PathBuf {
        self.certificates().other_ca()
    }

    /// A client's certificate that the server accepts, as a PEM file.
    pub fn client_cert_file(&self) -> PathBuf {
        self.certificates().client_cert()
    }

    /// The key of [`client_cert_file`](Self::client_cert_file), as a PEM file (PKCS #8).
    pub fn client_key_file(&self) -> PathBuf {
        self.certificates().client_key()
    }

    fn certificates(&self) -> &Certificates {
        self.launch
            .certificates
            .as_deref()
            .expect("certificates are made by RedisServer::start_tls, and this server was started without TLS")
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What `redis-cli` says to a PING over TLS with these options.
    fn ping(server: &RedisServer, ca: PathBuf, options: &[PathBuf]) -> String {
        let mut command = Command::new(super::super::program::cli());
        command.args(["-h", "127.0.0.1", "-p", &server.port().to_string()]);
        command.args(["--tls", "--cacert"]).arg(ca);
        for (option, file) in ["--cert", "--key"].iter().zip(options) {
            command.arg(option).arg(file);
        }
        let output = command.arg("PING").output().expect("redis-cli runs");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    #[tokio::test]
    async fn a_tls_server_is_known_by_its_authority_and_asks_for_a_certificate() {
        let server = RedisServer::start_tls(&[]).await;
        assert_eq!(
            server.url(),
            format!("rediss://localhost:{}", server.port())
        );
        assert_eq!(server.cli(&["SET", "k", "v"]).await, "OK");
        let client = [server.client_cert_file(), server.client_key_file()];
        assert_eq!(ping(&server, server.ca_file(), &client), "PONG");
        let refused = ping(&server, server.other_ca_file(), &client);
        assert!(refused.contains("certificate verify failed"), "{refused}");
        let refused = ping(&server, server.ca_file(), &[]);
        assert_ne!(refused, "PONG");
    }

    #[tokio::test]
    async fn a_tls_server_restarts_with_the_same_certificates() {
        let mut server = RedisServer::start_tls(&["--tls-auth-clients", "no"]).await;
        assert_eq!(ping(&server, server.ca_file(), &[]), "PONG");
        let before = std::fs::read(server.ca_file()).expect("the file is there");
        server.restart_empty().await;
        assert_eq!(ping(&server, server.ca_file(), &[]), "PONG");
        let after = std::fs::read(server.ca_file()).expect("the file is there");
        assert_eq!(before, after);
    }
}
