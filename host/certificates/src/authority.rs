//! Whether a certificate is that of an authority (RFC 5280 4.2.1.9).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lockgate_model::der;

const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// The tag of the extensions in a certificate.
const EXTENSIONS: u8 = 0xa3;
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// Whether the first certificate in `pem` may sign others. What cannot be read may not.
pub fn is_authority(pem: &str) -> bool {
    certificate(pem).is_some_and(|certificate| may_sign(&certificate) == Some(true))
}

fn certificate(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (text, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let text: String = text.split_whitespace().collect();
    STANDARD.decode(text).ok()
}

fn may_sign(certificate: &[u8]) -> Option<bool> {
    let mut whole = der::expect(&mut &*certificate, SEQUENCE)?;
    let mut fields = der::expect(&mut whole, SEQUENCE)?;
    let mut extensions = loop {
        let (tag, value) = der::take(&mut fields)?;
        if tag == EXTENSIONS {
            break der::expect(&mut &*value, SEQUENCE)?;
        }
    };
    loop {
        let mut extension = der::expect(&mut extensions, SEQUENCE)?;
        if der::expect(&mut extension, OBJECT)? != BASIC_CONSTRAINTS {
            continue;
        }
        let (mut tag, mut value) = der::take(&mut extension)?;
        // Whether it is critical.
        if tag == BOOLEAN {
            (tag, value) = der::take(&mut extension)?;
        }
        let mut constraints = match tag {
            OCTETS => der::expect(&mut &*value, SEQUENCE)?,
            _ => return None,
        };
        return Some(der::expect(&mut constraints, BOOLEAN)? != [0]);
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::request;
    use crate::{is_authority, issue};

    #[test]
    fn an_authority_is_told_from_others() {
        let made = issue(&request()).unwrap();
        assert!(is_authority(&made.authority.certificate));
        assert!(!is_authority(&made.server.certificate));
        assert!(!is_authority(&made.client.certificate));
        let cut = &made.authority.certificate[..200];
        for other in ["", "no PEM", cut] {
            assert!(!is_authority(other), "{other}");
        }
    }
}
