//! SOCKS 5 (RFC 1928), with a user name and a password (RFC 1929) if the proxy asks for them.

use std::net::IpAddr;

use lockgate_model::OutboundLogin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Address;
use super::outbound::OutboundReason;

const VERSION: u8 = 5;
/// Of the exchange of user name and password.
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Has the proxy connect to the address, which it looks up itself. Then the stream leads there.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    address: &Address,
    login: Option<&OutboundLogin>,
) -> Result<(), OutboundReason> {
    let offer: &[u8] = match login {
        None => &[VERSION, 1, NO_LOGIN],
        Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
    };
    send(stream, offer).await?;
    match (receive(stream).await?, login) {
        ([VERSION, NO_LOGIN], _) => {}
        ([VERSION, LOGIN], Some(login)) => log_in(stream, login).await?,
        ([VERSION, _], None) => {
            let answer = "it accepts nobody without them".to_owned();
            return Err(OutboundReason::LoginMissing(answer));
        }
        ([VERSION, _], Some(_)) => {
            let answer = "it knows another kind of login only".to_owned();
            return Err(OutboundReason::LoginRefused(answer));
        }
        _ => return Err(not_socks("does not answer as a SOCKS 5 proxy")),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match address.host.parse() {
        Ok(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
        Err(_) => {
            let length = u8::try_from(address.host.len());
            let length = length.map_err(|_| OutboundReason::Refused("no name so long".into()))?;
            request.extend([NAME, length]);
            request.extend(address.host.as_bytes());
        }
    }
    request.extend(address.port.to_be_bytes());
    send(stream, &request).await?;
    let [version, code, _, kind] = receive(stream).await?;
    if version != VERSION {
        return Err(not_socks("does not answer as a SOCKS 5 proxy"));
    }
    if code != 0 {
        return Err(OutboundReason::Refused(format!("`{}`", refusal(code))));
    }
    // The address from which it has connected.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [length] = receive(stream).await?;
            usize::from(length)
        }
        _ => return Err(not_socks("answers with an address of an unknown kind")),
    };
    let mut bound = vec![0; length + 2];
    let read = stream.read_exact(&mut bound).await;
    read.map(|_| ()).map_err(|error| lost(&error))
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: &OutboundLogin,
) -> Result<(), OutboundReason> {
    let (user, password) = (login.user.as_bytes(), login.password.expose().as_bytes());
    let mut request = vec![LOGIN_VERSION];
    for text in [user, password] {
        let length = u8::try_from(text.len());
        request.push(length.map_err(|_| OutboundReason::LoginRefused("too long".into()))?);
        request.extend(text);
    }
    send(stream, &request).await?;
    match receive(stream).await? {
        [_, 0] => Ok(()),
        [_, code] => Err(OutboundReason::LoginRefused(format!("code {code}"))),
    }
}

fn refusal(code: u8) -> String {
    let text = match code {
        1 => "general SOCKS server failure",
        2 => "connection not allowed by ruleset",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => return format!("error {code}"),
    };
    text.to_owned()
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), OutboundReason> {
    stream.write_all(bytes).await.map_err(|error| lost(&error))
}

async fn receive<const N: usize, S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<[u8; N], OutboundReason> {
    let mut bytes = [0; N];
    let read = stream.read_exact(&mut bytes).await;
    read.map(|_| bytes).map_err(|error| lost(&error))
}

fn lost(error: &std::io::Error) -> OutboundReason {
    not_socks(&format!("breaks the connection off: {error}"))
}

fn not_socks(found: &str) -> OutboundReason {
    OutboundReason::OtherService(found.to_owned())
}

#[cfg(test)]
mod tests {
    use lockgate_model::Secret;
    use proptest::prelude::*;

    use super::*;

    /// What a proxy is sent that answers with these bytes in turn, and what comes of it.
    async fn exchange(
        host: &str,
        login: Option<(&str, &str)>,
        answers: &[&[u8]],
    ) -> (Vec<u8>, Result<(), OutboundReason>) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        far.write_all(&answers.concat()).await.expect("room");
        if answers.last().is_none_or(|last| last.is_empty()) {
            far.shutdown().await.expect("an end");
        }
        let login = login.map(|(user, password)| OutboundLogin {
            user: user.to_owned(),
            password: Secret::new(password),
        });
        let address = Address {
            host: host.to_owned(),
            port: 443,
        };
        let result = connect(&mut near, &address, login.as_ref()).await;
        drop(near);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.expect("bytes");
        (sent, result)
    }

    const OK: &[u8] = &[5, 0, 0, 1, 10, 0, 0, 1, 4, 0];

    #[tokio::test]
    async fn an_address_is_asked_for_as_it_was_written() {
        for (host, asked) in [
            ("t.io", &b"\x05\x01\x00\x03\x04t.io\x01\xbb"[..]),
            ("10.0.0.7", b"\x05\x01\x00\x01\x0a\x00\x00\x07\x01\xbb"),
        ] {
            let (sent, result) = exchange(host, None, &[&[5, 0], OK]).await;
            assert_eq!(result, Ok(()));
            assert_eq!(sent, [b"\x05\x01\x00", asked].concat());
        }
        let (sent, result) = exchange("2001:db8::7", None, &[&[5, 0], OK]).await;
        assert_eq!((sent.len(), result), (3 + 4 + 16 + 2, Ok(())));
        // Its own address may be a name.
        let named: &[u8] = &[5, 0, 0, 3, 2, b'p', b'x', 4, 0];
        assert_eq!(exchange("t.io", None, &[&[5, 0], named]).await.1, Ok(()));
    }

    #[tokio::test]
    async fn the_login_is_sent_only_if_it_is_asked_for() {
        let login = Some(("me", "s3cret"));
        let (sent, result) = exchange("t.io", login, &[&[5, 2], &[1, 0], OK]).await;
        assert_eq!(result, Ok(()));
        assert!(sent.starts_with(b"\x05\x02\x00\x02\x01\x02me\x06s3cret\x05\x01"));
        let (sent, result) = exchange("t.io", login, &[&[5, 0], OK]).await;
        assert_eq!(result, Ok(()));
        assert!(!sent.windows(6).any(|part| part == b"s3cret"));
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        type Reason = fn(String) -> OutboundReason;
        let login = Some(("me", "s3cret"));
        for (login, answers, reason, text) in [
            (
                None,
                &[&[5, 255][..]][..],
                OutboundReason::LoginMissing as Reason,
                "nobody",
            ),
            (
                login,
                &[&[5, 255]],
                OutboundReason::LoginRefused,
                "another kind",
            ),
            (
                login,
                &[&[5, 2], &[1, 1]],
                OutboundReason::LoginRefused,
                "code 1",
            ),
            (
                None,
                &[&[5, 0], &[5, 2, 0, 1]],
                OutboundReason::Refused,
                "not allowed by ruleset",
            ),
            (
                None,
                &[b"HTTP/1.1 400"],
                OutboundReason::OtherService,
                "as a SOCKS 5 proxy",
            ),
            (
                None,
                &[b""],
                OutboundReason::OtherService,
                "breaks the connection off",
            ),
            (
                None,
                &[&[5, 0], b""],
                OutboundReason::OtherService,
                "breaks the connection off",
            ),
        ] {
            let failure = exchange("t.io", login, answers).await.1.expect_err(text);
            let shown = format!("{failure:?}");
            assert!(shown.contains(text) && !shown.contains("s3cret"), "{shown}");
            let same = std::mem::discriminant(&failure);
            assert_eq!(
                same,
                std::mem::discriminant(&reason(String::new())),
                "{shown}"
            );
        }
    }

    /// How an exchange ends, by the rules of RFC 1928 and 1929 alone: the kind of the result, and
    /// how many bytes of the answers belong to it.
    fn expected(answers: &[u8], has_login: bool) -> (Option<&'static str>, usize) {
        let closed = (Some("other service"), answers.len());
        let Some((greeting, rest)) = answers.split_at_checked(2) else {
            return closed;
        };
        let mut used = 2;
        let mut rest = rest;
        match (greeting, has_login) {
            ([5, 0], _) => {}
            ([5, 2], true) => {
                let Some((answer, after)) = rest.split_at_checked(2) else {
                    return closed;
                };
                used += 2;
                rest = after;
                if answer[1] != 0 {
                    return (Some("login refused"), used);
                }
            }
            ([5, _], true) => return (Some("login refused"), used),
            ([5, _], false) => return (Some("login missing"), used),
            _ => return (Some("other service"), used),
        }
        let Some((head, rest)) = rest.split_at_checked(4) else {
            return closed;
        };
        used += 4;
        let bound = match (head[0], head[1], head[3]) {
            (5, 0, 1) => 4,
            (5, 0, 4) => 16,
            (5, 0, 3) => match rest.first() {
                Some(&length) => 1 + usize::from(length),
                None => return closed,
            },
            (5, 0, _) | (0..=4 | 6.., _, _) => return (Some("other service"), used),
            _ => return (Some("refused"), used),
        };
        match rest.len() < bound + 2 {
            true => closed,
            false => (None, used + bound + 2),
        }
    }

    fn kind(reason: &OutboundReason) -> &'static str {
        match reason {
            OutboundReason::LoginMissing(_) => "login missing",
            OutboundReason::LoginRefused(_) => "login refused",
            OutboundReason::Refused(_) => "refused",
            OutboundReason::OtherService(_) => "other service",
            OutboundReason::Unreachable(_) | OutboundReason::Tls(_) => "another",
        }
    }

    /// Answers that go on for a while, and any bytes.
    fn answers() -> impl Strategy<Value = Vec<u8>> {
        let byte = |likely: &'static [u8]| prop_oneof![9 => prop::sample::select(likely), 1 => any::<u8>()];
        let start = (byte(&[5]), byte(&[0, 2, 255]), byte(&[5, 1]), byte(&[0]));
        let start = start.prop_map(|(a, b, c, d)| vec![a, b, c, d]);
        let reply = (byte(&[5]), byte(&[0]), byte(&[0]), byte(&[1, 3, 4]));
        let reply = reply.prop_map(|(a, b, c, d)| vec![a, b, c, d]);
        let bytes = prop::collection::vec(any::<u8>(), 0..300);
        // A greeting with a login has two bytes more than one without.
        let parts = (start, any::<bool>(), reply, bytes.clone());
        let likely = parts.prop_map(|(mut all, has_login, reply, bytes)| {
            all.truncate(if has_login { 4 } else { 2 });
            all.extend(reply);
            all.extend(bytes);
            all
        });
        prop_oneof![4 => likely, 1 => bytes]
    }

    proptest! {
        /// Also that it takes no byte of what follows, which is Teleport's.
        #[test]
        fn whatever_a_proxy_answers_and_however_it_is_cut_has_its_meaning(
            answers in answers(),
            cuts in prop::collection::vec(1_usize..40, 0..40),
            has_login: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (result, left) = runtime.block_on(async {
                // One part at a time fits into it.
                let (mut near, far) = tokio::io::duplex(64);
                let (mut sent, mut answering) = tokio::io::split(far);
                let whole = &answers;
                let answer = async move {
                    let mut rest = &whole[..];
                    for cut in cuts.into_iter().chain([usize::MAX]) {
                        let (part, after) = rest.split_at(cut.min(rest.len()));
                        // It may have ended.
                        let _ = answering.write_all(part).await;
                        tokio::task::yield_now().await;
                        rest = after;
                    }
                    let _ = answering.shutdown().await;
                };
                let login = has_login.then(|| OutboundLogin {
                    user: "me".to_owned(),
                    password: Secret::new("s3cret"),
                });
                let ask = async move {
                    let address = Address { host: "t.io".to_owned(), port: 443 };
                    let result = connect(&mut near, &address, login.as_ref()).await;
                    let mut left = Vec::new();
                    let _ = near.read_to_end(&mut left).await;
                    (result, left)
                };
                let listen = async {
                    let mut ignored = Vec::new();
                    let _ = sent.read_to_end(&mut ignored).await;
                };
                tokio::join!(ask, answer, listen).0
            });
            let (failure, used) = expected(&answers, has_login);
            prop_assert_eq!(result.as_ref().err().map(kind), failure);
            prop_assert_eq!(left, &answers[used..]);
        }
    }
}
