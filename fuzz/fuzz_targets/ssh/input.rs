//! What the target `ssh` does with its input. Tests of `host/ssh` do the same with the seeds.

use std::sync::Arc;

use lockgate_ssh::{
    Certificate, Client, HostCheck, HostKey, Limits, Login, PublicKey, SecretKey, Server,
    authority_of_line,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

/// Opens nothing.
const KEY: &str = include_str!("../../../host/sim/testdata/rsa.pkcs8.pem");

/// The first byte says what the others are.
pub fn read(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => {
            if let Some(certificate) = Certificate::parse(bytes) {
                assert_eq!(certificate.blob, bytes);
                let authorities = [certificate.authority.clone()];
                let _ = certificate.check_host("host", &authorities, 1_000_000);
            }
        }
        1 => {
            let text = String::from_utf8_lossy(bytes);
            let _ = Certificate::of_line(&text);
            if let Some(blob) = authority_of_line(&text) {
                let key = PublicKey::parse(&blob).expect("it was read before");
                assert_eq!(key.blob(), blob);
                assert!(!key.verifies(None, b"message", bytes));
            }
        }
        side => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            runtime.expect("a runtime").block_on(talk(bytes, side == 2));
        }
    }
}

/// What the other side sends does not depend on what it gets.
async fn talk(bytes: &[u8], is_client: bool) {
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
    let key = SecretKey::new(&key).expect("a key");
    let stream = tokio::io::join(std::io::Cursor::new(bytes.to_vec()), tokio::io::sink());
    let public = PublicKey::Ed25519(vec![7; 32]);
    if is_client {
        let check: HostCheck = Arc::new(|_| Ok(()));
        let certificate = Certificate {
            blob: Vec::new(),
            key: public,
            kind: lockgate_ssh::CertificateKind::User,
            key_id: String::new(),
            principals: Vec::new(),
            validity: (0, 0),
            critical_options: Vec::new(),
            authority: Vec::new(),
        };
        let login = Login {
            user: "user",
            certificate: &certificate,
            key: &key,
        };
        let connected = Client::connect(stream, check, login, Limits::default()).await;
        assert!(connected.is_err(), "nobody has signed anything");
    } else {
        let host = HostKey {
            certificate: Vec::new(),
            key,
            public,
        };
        let accepted = Server::accept(stream, host, |_, _| true, Limits::default()).await;
        assert!(accepted.is_err(), "nobody has signed anything");
    }
}
