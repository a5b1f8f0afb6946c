//! Locks, as a real server keeps them: by name, each of which replaces the one before.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockgate_model::Millis;
use lockgate_teleport::proto::authservice::{LockSpecV2, LockTarget, LockV2, Metadata};
use prost_types::Timestamp;
use tonic::Status;

/// A lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    pub name: String,
    /// Whom or what it locks.
    pub user: String,
    pub login: String,
    pub message: String,
    /// `None`: never.
    pub expires: Option<Millis>,
}

#[derive(Default)]
pub(super) struct Locks {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_name: BTreeMap<String, LockV2>,
    made: Vec<Lock>,
}

impl Locks {
    pub(super) fn made(&self) -> Vec<Lock> {
        self.kept().made.clone()
    }

    pub(super) fn named(&self, name: &str) -> Option<Lock> {
        self.kept().by_name.get(name).map(Lock::of)
    }

    pub(super) fn put(&self, lock: Lock) {
        let name = lock.name.clone();
        self.kept().by_name.insert(name, lock.into_wire());
    }

    pub(super) fn read(&self, name: &str) -> Result<LockV2, Status> {
        let found = self.kept().by_name.get(name).cloned();
        found.ok_or_else(|| Status::not_found(format!("lock {name:?} is not found")))
    }

    /// Teleport's checks, in its words.
    pub(super) fn upsert(&self, lock: LockV2) -> Result<(), Status> {
        let shown = Lock::of(&lock);
        if shown.name.is_empty() {
            return Err(Status::invalid_argument("missing parameter Name"));
        }
        let target = lock.spec.clone().unwrap_or_default().target;
        if target.unwrap_or_default() == LockTarget::default() {
            let problem = "at least one target field must be set";
            return Err(Status::invalid_argument(problem));
        }
        tracing::info!(name = shown.name, user = shown.user, "a lock was made");
        let mut kept = self.kept();
        kept.by_name.insert(shown.name.clone(), lock);
        kept.made.push(shown);
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lock {
    fn of(lock: &LockV2) -> Lock {
        let spec = lock.spec.clone().unwrap_or_default();
        let target = spec.target.unwrap_or_default();
        Lock {
            name: lock.metadata.clone().unwrap_or_default().name,
            user: target.user,
            login: target.login,
            message: spec.message,
            expires: spec
                .expires
                .map(|at| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000),
        }
    }

    fn into_wire(self) -> LockV2 {
        LockV2 {
            kind: "lock".to_owned(),
            version: "v2".to_owned(),
            metadata: Some(Metadata { name: self.name }),
            spec: Some(LockSpecV2 {
                target: Some(LockTarget {
                    user: self.user,
                    login: self.login,
                    ..LockTarget::default()
                }),
                message: self.message,
                expires: self.expires.map(|expires| Timestamp {
                    seconds: expires.div_euclid(1000),
                    nanos: (expires.rem_euclid(1000) * 1_000_000) as i32,
                }),
            }),
        }
    }
}
