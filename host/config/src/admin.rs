//! `[admin]`: where the host answers questions about its health.

use std::net::SocketAddr;

use crate::defaults::ADMIN_LISTEN;
use crate::issues::Issue;
use crate::reading::Reading;
use crate::table::Table;

/// The listener of a running host. It has no authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `listen`: a loopback address; port 0 chooses a free port. `None`: no listener. Default
    /// `127.0.0.1:8686`.
    pub listen: Option<SocketAddr>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            listen: Some(ADMIN_LISTEN),
        }
    }
}

pub(crate) fn read(r: &mut Reading<'_>, root: &mut Table<'_>) -> Admin {
    let Some(mut table) = root.optional("admin").and_then(|value| value.table(r)) else {
        return Admin::default();
    };
    let mut admin = Admin::default();
    if let Some(value) = table.optional("listen")
        && let Some(text) = value.text(r)
    {
        match address(&text) {
            Ok(listen) => admin.listen = listen,
            Err((problem, label, hint)) => {
                let message = format!("`{}` {problem}.", value.path);
                r.issue(Issue::new(r.place(&value), message, label, hint));
            }
        }
    }
    table.finish(r);
    admin
}

/// The address, or the end of a sentence, a label and a hint.
fn address(text: &str) -> Result<Option<SocketAddr>, (&'static str, &'static str, &'static str)> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        (
            "is not an IP address with a port",
            "expected an address",
            "for example `127.0.0.1:8686` or `[::1]:8686`; `\"\"` switches the listener off",
        )
    })?;
    if address.ip().is_loopback() {
        Ok(Some(address))
    } else {
        Err((
            "is not a loopback address",
            "others could reach it without a password",
            "use `127.0.0.1` or `[::1]`; for access from other machines, run a proxy with \
             authentication in front of it",
        ))
    }
}
