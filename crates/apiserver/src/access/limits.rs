//! Limits: how many requests and watches may be under way at a time.
//!
//! Holds: a place is given back when its request is answered or its watch ends, however that happens. `system:masters`
//! need no place, so that the owner can always see what is going on, and reconcilers in the process never wait for others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::attributes::Attributes;
use super::user::User;
use crate::refusal::Refusal;

/// How much may be under way at a time; more is answered with 429. Nothing of it applies to `system:masters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests that only read, watches not among them.
    pub reads: usize,
    /// Requests that write.
    pub writes: usize,
    /// Watches of everybody together.
    pub watches: usize,
    /// Watches of one user.
    pub watches_per_user: usize,
}

impl Default for Limits {
    /// Reads and writes as a kube-apiserver has them; watches as one host needs them.
    fn default() -> Limits {
        Limits { reads: 400, writes: 200, watches: 1000, watches_per_user: 100 }
    }
}

/// Who is inside.
#[derive(Debug)]
pub(crate) struct Gate {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    watches_per_user: usize,
    watching: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) enum Pass {
    /// None was needed.
    Free,
    /// One of a kind.
    Request { _place: OwnedSemaphorePermit },
    /// One of all watches, and one of the user's.
    Watch { _place: OwnedSemaphorePermit, _own: OwnWatch },
}

/// One watch of one user.
#[derive(Debug)]
pub(crate) struct OwnWatch {
    user: String,
    watching: Arc<Mutex<HashMap<String, usize>>>,
}

impl Drop for OwnWatch {
    fn drop(&mut self) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = watching.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                watching.remove(&self.user);
            }
        }
    }
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Gate {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Gate {
            reads: places(limits.reads),
            writes: places(limits.writes),
            watches: places(limits.watches),
            watches_per_user: limits.watches_per_user,
            watching: Arc::default(),
        }
    }

    /// A place for the request; refused when all are taken. Nobody waits for one.
    pub(crate) fn enter(&self, user: &User, asked: &Attributes) -> Result<Pass, Refusal> {
        if user.is_master() {
            return Ok(Pass::Free);
        }
        let take = |places: &Arc<Semaphore>| {
            Arc::clone(places).try_acquire_owned().map_err(|_all_taken| Refusal::TooManyRequests)
        };
        if asked.is_watch() {
            let own = self.own_watch(&user.name)?;
            return Ok(Pass::Watch { _place: take(&self.watches)?, _own: own });
        }
        let places = if asked.is_read() { &self.reads } else { &self.writes };
        Ok(Pass::Request { _place: take(places)? })
    }

    fn own_watch(&self, user: &str) -> Result<OwnWatch, Refusal> {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let count = watching.get(user).copied().unwrap_or(0);
        if count >= self.watches_per_user {
            return Err(Refusal::TooManyRequests);
        }
        watching.insert(String::from(user), count + 1);
        Ok(OwnWatch { user: String::from(user), watching: Arc::clone(&self.watching) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(verb: &str) -> Attributes {
        Attributes { verb: String::from(verb), resource: String::from("things"), ..Attributes::default() }
    }

    #[test]
    fn places_are_counted_by_kind_and_given_back() {
        let gate = Gate::new(Limits { reads: 1, writes: 1, watches: 3, watches_per_user: 2 });
        let (one, two) = (User::named("one", &[]), User::named("two", &[]));
        let enter = |user: &User, verb: &str| gate.enter(user, &asked(verb));
        let full =
            |user: &User, verb: &str| assert_eq!(enter(user, verb).err(), Some(Refusal::TooManyRequests), "{verb}");

        let read = enter(&one, "list").expect("a place");
        full(&two, "get");
        let write = enter(&one, "patch").expect("a place: reads do not take those of writes");
        full(&two, "deletecollection");
        drop((read, write));
        drop((enter(&two, "get").expect("given back"), enter(&two, "create").expect("given back")));

        let first = enter(&one, "watch").expect("a place");
        let _second = enter(&one, "watch").expect("a place");
        full(&one, "watch");
        let _third = enter(&two, "watch").expect("a place: another user");
        full(&two, "watch");
        assert!(matches!(enter(&User::owner(), "watch"), Ok(Pass::Free)));
        drop(first);
        let _again = enter(&two, "watch").expect("given back");
        // A watch that found no place keeps none of its user's.
        full(&one, "watch");
        drop(_again);
        enter(&one, "watch").expect("given back");
        assert!(enter(&one, "list").is_ok(), "watches do not take places of reads");
    }
}
