//! The lock as Teleport keeps it: its name, target and message, and what another one of the same
//! name means.

use lockgate_model::Millis;

use crate::connect::{Failure, LockService};
use crate::proto::authservice::{GetLockRequest, LockSpecV2, LockTarget, LockV2, Metadata};
use crate::time::{of_proto, to_proto};

/// The same as those of Teleport's Event Handler, so that its locks are recognised.
const MESSAGE: &str = "User is locked due to too many failed login attempts";
const KIND: &str = "lock";
const VERSION: &str = "v2";
/// A user that no cluster has.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// The lock of a user. It targets nothing but the user: a lock that also named an OS login would
/// lock everybody who may use that login (Teleport api/types/lock.go, `LockTarget.Match`).
pub(super) fn lock_of(user: &str, expires: Option<Millis>) -> LockV2 {
    LockV2 {
        kind: KIND.to_owned(),
        version: VERSION.to_owned(),
        metadata: Some(Metadata { name: name(user) }),
        spec: Some(LockSpecV2 {
            target: Some(LockTarget {
                user: user.to_owned(),
                ..LockTarget::default()
            }),
            message: MESSAGE.to_owned(),
            expires: expires.map(to_proto),
        }),
    }
}

/// As the Event Handler names it: its second half is the OS login, which no event of a failed login
/// has.
pub(super) fn name(user: &str) -> String {
    format!("event-handler-auto-lock-{user}-")
}

/// What a lock means that has the name of one that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It may be replaced: it is ours and ends earlier, or it is not in force any more.
    Replaceable,
    /// It is in force for as long, or somebody has changed it.
    InForce,
    /// It is in force and somebody has changed what it locks: not this user.
    OfSomethingElse,
}

impl Existing {
    pub(super) fn of(found: &LockV2, user: &str, expires: Option<Millis>, now: Millis) -> Existing {
        let spec = found.spec.clone().unwrap_or_default();
        let until = spec.expires.as_ref().map(|until| of_proto(Some(until)));
        let target = spec.target.unwrap_or_default();
        if until.is_some_and(|until| until <= now) {
            return Existing::Replaceable;
        }
        if target.user != user {
            return Existing::OfSomethingElse;
        }
        let is_ours = spec.message == MESSAGE && target.role.is_empty();
        let ends_earlier = match (until, expires) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(until), Some(expires)) => until < expires,
        };
        match is_ours && ends_earlier {
            true => Existing::Replaceable,
            false => Existing::InForce,
        }
    }
}

/// Whether the role allows to make locks. Nothing is made: Teleport looks at the role before it
/// refuses a lock without a name and a target (lib/auth/auth_with_roles.go, `UpsertLock`).
pub(crate) async fn ask_for_permission(
    locks: &mut LockService,
    address: &str,
) -> Result<(), Failure> {
    let asked = locks.upsert_lock(LockV2::default()).await;
    match asked.map_err(|status| Failure::of(address, &status)) {
        Ok(_) | Err(Failure::Refused { .. }) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Whether the role allows to read locks.
pub(crate) async fn may_read(locks: &mut LockService, address: &str) -> Result<bool, Failure> {
    let name = name(NOBODY);
    let asked = locks.get_lock(GetLockRequest { name }).await;
    match asked.map_err(|status| Failure::of(address, &status)) {
        Ok(_) | Err(Failure::NotFound { .. }) => Ok(true),
        Err(Failure::AccessDenied { .. } | Failure::Unimplemented { .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_the_same_name_is_replaced_only_if_it_is_ours_and_ends_earlier() {
        let now = 1_000_000;
        let ours = |until| lock_of("ann", until);
        let changed = |change: &dyn Fn(&mut LockSpecV2)| {
            let mut lock = ours(Some(now + 1000));
            change(lock.spec.as_mut().unwrap());
            lock
        };
        let by_human = changed(&|spec| spec.message = "left the company".to_owned());
        let of_other = changed(&|spec| spec.target.as_mut().unwrap().user = "bob".to_owned());
        for (found, expires, expected) in [
            (
                ours(Some(now + 1000)),
                Some(now + 2000),
                Existing::Replaceable,
            ),
            (ours(Some(now + 1000)), None, Existing::Replaceable),
            (ours(Some(now + 2000)), Some(now + 2000), Existing::InForce),
            (ours(Some(now + 3000)), Some(now + 2000), Existing::InForce),
            (ours(None), Some(now + 2000), Existing::InForce),
            (ours(None), None, Existing::InForce),
            (ours(Some(now)), Some(now + 2000), Existing::Replaceable),
            (by_human, None, Existing::InForce),
            (of_other, None, Existing::OfSomethingElse),
        ] {
            assert_eq!(
                Existing::of(&found, "ann", expires, now),
                expected,
                "{found:?}"
            );
        }
    }
}
