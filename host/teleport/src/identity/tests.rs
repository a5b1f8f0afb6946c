//! Tests of identity files.

use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;

use super::*;

const SSH_CERTIFICATE: &str =
    "ssh-rsa-cert-v01@openssh.com AAAAHHNzaC1yc2EtY2VydC12MDFAb3BlbnNzaC5jb20";
const SSH_AUTHORITY: &str =
    "@cert-authority example.com,*.example.com ssh-rsa AAAAB3NzaC1yc2E type=host";

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn certificate(
    authority: &CertifiedIssuer<'static, KeyPair>,
    key: &impl rcgen::PublicKeyData,
    name: &str,
) -> String {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params
        .signed_by(key, authority)
        .expect("a certificate")
        .pem()
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/keys")
        .join(name);
    std::fs::read_to_string(path).expect("a key of the test data")
}

/// The key pair from which a certificate is made.
fn public(name: &str) -> KeyPair {
    if name == "ed25519" {
        // The test data has this key in OpenSSH's format only.
        let key = openssh::decode(&fixture("ed25519.openssh.pem")).expect("the key");
        return KeyPair::try_from(&key).expect("a key");
    }
    KeyPair::from_pem(&fixture(&format!("{name}.pkcs8.pem"))).expect("a key")
}

/// An identity file, in the order in which Teleport writes it.
fn file(key: &str, certificate: &str, authority: &str) -> String {
    format!("{key}{SSH_CERTIFICATE}\n{certificate}{SSH_AUTHORITY}\n{authority}")
}

/// Performs a handshake in memory; the server requires a client certificate.
fn handshake(identity: &Identity, authority: &CertifiedIssuer<'static, KeyPair>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .expect("a verifier");
    let key = KeyPair::generate().expect("a key");
    let own = certificate(authority, &key, "teleport.cluster.local");
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(own.as_bytes()).expect("a certificate")],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a configuration");
    let mut server = rustls::ServerConnection::new(Arc::new(server)).expect("a server");
    let name = ServerName::try_from("teleport.cluster.local").expect("a name");
    let client = identity.tls(&[]).expect("a configuration");
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).expect("a client");
    while client.is_handshaking()
        || server.is_handshaking()
        || client.wants_write()
        || server.wants_write()
    {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).expect("memory");
            server
                .process_new_packets()
                .expect("the server accepts the client");
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).expect("memory");
            client
                .process_new_packets()
                .expect("the client accepts the server");
        }
    }
    assert_eq!(server.peer_certificates(), Some(&identity.certificates[..]));
}

#[test]
fn a_handshake_succeeds_with_every_kind_of_key() {
    let authority = authority();
    for (key, names) in [
        (
            "rsa",
            &["rsa.pkcs1.pem", "rsa.pkcs8.pem", "rsa.openssh.pem"][..],
        ),
        ("ec", &["ec.sec1.pem", "ec.pkcs8.pem", "ec.openssh.pem"]),
        ("ed25519", &["ed25519.openssh.pem"]),
    ] {
        let certificate = certificate(&authority, &public(key), "bot");
        for name in names {
            let identity =
                parse(&file(&fixture(name), &certificate, &authority.pem())).expect(name);
            assert_eq!(identity.ssh_certificate.as_deref(), Some(SSH_CERTIFICATE));
            assert_eq!(identity.ssh_authorities, [SSH_AUTHORITY]);
            assert_eq!(identity.validity.not_after, 4_070_908_800_000, "2099-01-01");
            handshake(&identity, &authority);
        }
    }
}

#[test]
fn errors_name_the_missing_or_invalid_part() {
    let authority = authority();
    let key = fixture("ec.sec1.pem");
    let certificate = certificate(&authority, &public("ec"), "bot");
    let ca = authority.pem();
    let long = format!("{}\n", "x".repeat(LINE_MAX));
    for (text, error) in [
        (String::new(), IdentityError::NoKey),
        (format!("{certificate}{ca}"), IdentityError::NoKey),
        (key.clone(), IdentityError::NoCertificate),
        (format!("{key}{certificate}"), IdentityError::NoAuthority),
        (
            format!("{key}{certificate}{}", &ca[..ca.len() / 2]),
            IdentityError::Unterminated("CERTIFICATE".into()),
        ),
        (
            format!("{key}{}{ca}", certificate.replace("MII", "!!!")),
            IdentityError::Block("CERTIFICATE".into()),
        ),
        (
            format!("{key}{long}{certificate}{ca}"),
            IdentityError::LineTooLong(key.lines().count() + 1),
        ),
        (
            format!("{}{certificate}{ca}", fixture("rsa.encrypted.pem")),
            IdentityError::KeyEncrypted,
        ),
        (
            format!("{}{certificate}{ca}", fixture("ed25519.encrypted.pem")),
            IdentityError::KeyEncrypted,
        ),
        (
            format!("{key}-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n{ca}"),
            IdentityError::Certificate,
        ),
    ] {
        assert_eq!(parse(&text).map(|_| ()), Err(error), "{text}");
    }
    // The SSH parts may be absent, lines may be indented and end as on Windows, and there may be
    // other lines.
    let text = format!("hello\n{key}{certificate}\n  {ca}").replace('\n', "\r\n");
    assert!(parse(&text).is_ok());
}

#[test]
fn files_are_loaded_and_errors_name_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let authority = authority();
    let certificate = certificate(&authority, &public("ec"), "bot");
    let identity = write(
        "identity",
        &file(&fixture("ec.openssh.pem"), &certificate, &authority.pem()),
    );
    handshake(
        &Credentials::identity_file(&identity)
            .load()
            .expect("an identity"),
        &authority,
    );

    let trio = |key: &str| {
        let (certificate, authority) = (
            write("bot.crt", &certificate),
            write("bot.cas", &authority.pem()),
        );
        Credentials::key_trio(certificate, write("bot.key", key), authority)
    };
    handshake(
        &trio(&fixture("ec.sec1.pem")).load().expect("a trio"),
        &authority,
    );

    let other = trio(&fixture("rsa.pkcs1.pem"))
        .load()
        .expect_err("another key")
        .to_string();
    assert!(
        other.contains("bot.key") && other.contains("does not belong to the certificate"),
        "{other}"
    );
    let good = trio(&fixture("ec.sec1.pem"));
    write(
        "bot.cas",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let broken = good.load().expect_err("a broken authority");
    assert_eq!(broken.path(), dir.path().join("bot.cas"));
    let text = broken.to_string();
    assert!(
        text.contains("authority") && !text.contains("key"),
        "{text}"
    );
    let none = trio("").load().expect_err("no key").to_string();
    assert!(
        none.contains("bot.key") && none.contains("no private key"),
        "{none}"
    );
    let absent = Credentials::identity_file(dir.path().join("absent"));
    assert!(
        absent
            .load()
            .expect_err("no file")
            .to_string()
            .contains("absent")
    );

    let credentials = Credentials::identity_file(&identity);
    let before = credentials.stamps();
    assert_eq!(before, credentials.stamps());
    write("identity", "half of ");
    assert_ne!(before, credentials.stamps());
    assert!(credentials.load().is_err());
}

/// As with Kubernetes' links, and with copies that keep the time of the original.
#[test]
fn another_file_is_noticed_if_its_length_and_its_time_are_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    for (name, text) in [("one", "first"), ("two", "other")] {
        let secret = dir.path().join(name);
        std::fs::create_dir(&secret).expect("a directory");
        std::fs::write(secret.join("identity"), text).expect("a file");
        let file = std::fs::File::options()
            .write(true)
            .open(secret.join("identity"));
        file.expect("a file").set_modified(time).expect("a time");
    }
    let (data, next) = (dir.path().join("..data"), dir.path().join("..data_tmp"));
    std::os::unix::fs::symlink("one", &data).expect("a link");
    let credentials = Credentials::identity_file(data.join("identity"));
    let before = credentials.stamps();
    assert_eq!(before, credentials.stamps());
    std::os::unix::fs::symlink("two", &next).expect("a link");
    std::fs::rename(&next, &data).expect("an exchange");
    assert_ne!(before, credentials.stamps());
}

proptest! {
    #[test]
    fn any_text_is_an_identity_or_an_error(text in any::<String>()) {
        prop_assert!(parse(&text).is_err());
    }

    #[test]
    fn damaged_files_are_an_identity_or_an_error(
        name in prop::sample::select(vec!["rsa.openssh.pem", "ec.openssh.pem", "ed25519.openssh.pem", "ec.sec1.pem", "rsa.pkcs1.pem"]),
        at in any::<prop::sample::Index>(),
        with in any::<char>(),
    ) {
        let mut chars: Vec<char> = file(&fixture(name), include_str!("../../testdata/certificate.pem"), include_str!("../../testdata/certificate.pem")).chars().collect();
        let at = at.index(chars.len());
        chars[at] = with;
        let _ = parse(&chars.into_iter().collect::<String>());
    }
}
