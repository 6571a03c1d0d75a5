//! Keeps lists that may change between a length query and the next call (PKCS#11 3.0, sections 5.2
//! and 5.5.1). A length query takes a snapshot of the list, and the next call returns that
//! snapshot.
//!
//! A snapshot belongs to the thread that asked for the length, and serves one list. A call without
//! a previous length query returns the current list.

use crate::handle::SlotId;
use crate::output::Room;
use cryptoki_sys::CK_ULONG;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// The largest number of list snapshots. A new snapshot replaces the oldest snapshot.
const MOST: usize = 256;

/// The kind of list in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// The slots that have a token, as CK_SLOT_ID.
    Present,
    /// The mechanisms of a slot's token, as CK_MECHANISM_TYPE.
    Mechanisms(SlotId),
}

/// The number of the calling thread. No other thread of the process has or had this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller(pub(crate) u64);

/// The list snapshots that wait for the second call of their thread.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(Mutex<VecDeque<Snapshot>>);

#[derive(Debug, Clone)]
struct Snapshot {
    list: ListKind,
    caller: Caller,
    items: Vec<CK_ULONG>,
}

impl Snapshots {
    /// Returns the items of the list for a call with this buffer size. The caller checks whether
    /// the items fit. `now` returns the current items. `now` runs without a lock, and only if no
    /// snapshot exists for this call.
    pub(crate) fn answer(
        &self,
        list: ListKind,
        caller: Caller,
        room: Room,
        now: impl FnOnce() -> Vec<CK_ULONG>,
    ) -> Vec<CK_ULONG> {
        match room {
            Room::Length => {
                let items = now();
                self.keep(Snapshot {
                    list,
                    caller,
                    items: items.clone(),
                });
                items
            }
            Room::Bytes(room) => match self.asked_by(caller, list, room) {
                Some(items) => items,
                None => {
                    let items = now();
                    let fits = items.len() <= room;
                    let elsewhere = || self.asked_elsewhere(list, room);
                    (!fits).then(elsewhere).flatten().unwrap_or(items)
                }
            },
        }
    }

    /// Returns the snapshots for a forked child. The result is empty if another thread of the
    /// parent held the lock.
    pub(crate) fn for_child(&self) -> Self {
        let kept = self.0.try_lock().map(|kept| kept.clone());
        Self(Mutex::new(kept.unwrap_or_default()))
    }

    fn keep(&self, snapshot: Snapshot) {
        let mut kept = self.0.lock();
        kept.retain(|one| !one.is(snapshot.caller, snapshot.list));
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back(snapshot);
    }

    /// Returns the snapshot of this thread. Removes the snapshot if it fits into the buffer.
    /// Otherwise the caller calls again with a larger buffer.
    fn asked_by(&self, caller: Caller, list: ListKind, room: usize) -> Option<Vec<CK_ULONG>> {
        let mut kept = self.0.lock();
        let place = kept.iter().position(|one| one.is(caller, list))?;
        match kept.get(place)?.items.len() <= room {
            true => kept.remove(place).map(|one| one.items),
            false => kept.get(place).map(|one| one.items.clone()),
        }
    }

    /// Returns a snapshot with exactly this number of items. Another thread of the host may have
    /// asked for the length.
    fn asked_elsewhere(&self, list: ListKind, room: usize) -> Option<Vec<CK_ULONG>> {
        let kept = self.0.lock();
        let mut newest = kept.iter().rev();
        let found = newest.find(|one| one.list == list && one.items.len() == room);
        found.map(|one| one.items.clone())
    }
}

impl Snapshot {
    fn is(&self, caller: Caller, list: ListKind) -> bool {
        self.caller == caller && self.list == list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: ListKind = ListKind::Present;
    const ONE: Caller = Caller(1);
    const OTHER: Caller = Caller(2);

    fn never() -> Vec<CK_ULONG> {
        unreachable!("a snapshot answers")
    }

    #[test]
    fn the_call_that_follows_a_length_query_sees_no_change() {
        let snapshots = Snapshots::default();
        for room in [1, 2, 9] {
            let told = snapshots.answer(LIST, ONE, Room::Length, || vec![7]);
            assert_eq!(told, [7]);
            assert_eq!(snapshots.answer(LIST, ONE, Room::Bytes(room), never), [7]);
            // A call without a length query sees the current list.
            let now = snapshots.answer(LIST, ONE, Room::Bytes(9), || vec![7, 8]);
            assert_eq!(now, [7, 8]);
        }
    }

    #[test]
    fn too_little_room_keeps_the_snapshot() {
        let snapshots = Snapshots::default();
        snapshots.answer(LIST, ONE, Room::Length, || vec![7, 8]);
        for room in [0, 1, 2] {
            assert_eq!(
                snapshots.answer(LIST, ONE, Room::Bytes(room), never),
                [7, 8]
            );
        }
        assert_eq!(snapshots.answer(LIST, ONE, Room::Bytes(2), || vec![9]), [9]);
    }

    #[test]
    fn a_second_length_query_replaces_the_first() {
        let snapshots = Snapshots::default();
        snapshots.answer(LIST, ONE, Room::Length, || vec![7, 8]);
        snapshots.answer(LIST, ONE, Room::Length, Vec::new);
        assert_eq!(snapshots.answer(LIST, ONE, Room::Bytes(0), never), [0; 0]);
    }

    #[test]
    fn each_list_and_each_thread_has_its_own() {
        let snapshots = Snapshots::default();
        let mechanisms = ListKind::Mechanisms(SlotId(0));
        snapshots.answer(LIST, ONE, Room::Length, || vec![7]);
        snapshots.answer(mechanisms, ONE, Room::Length, || vec![1, 2]);
        snapshots.answer(LIST, OTHER, Room::Length, || vec![7, 8]);
        // A thread that never asked for the mechanisms gets the current list if it fits.
        let now = snapshots.answer(mechanisms, OTHER, Room::Bytes(3), || vec![3]);
        assert_eq!(now, [3]);
        assert_eq!(snapshots.answer(LIST, OTHER, Room::Bytes(2), never), [7, 8]);
        assert_eq!(snapshots.answer(LIST, ONE, Room::Bytes(1), never), [7]);
        assert_eq!(
            snapshots.answer(mechanisms, ONE, Room::Bytes(2), never),
            [1, 2]
        );
    }

    #[test]
    fn a_caller_may_ask_in_one_thread_and_fetch_in_another() {
        let snapshots = Snapshots::default();
        snapshots.answer(LIST, ONE, Room::Length, || vec![7]);
        let fetched = snapshots.answer(LIST, OTHER, Room::Bytes(1), || vec![7, 8]);
        assert_eq!(fetched, [7]);
        // The snapshot of the first thread still exists.
        assert_eq!(snapshots.answer(LIST, ONE, Room::Bytes(1), never), [7]);
    }

    #[test]
    fn threads_that_never_fetch_leave_no_more_than_the_most() {
        let snapshots = Snapshots::default();
        for caller in 0..MOST as u64 + 9 {
            snapshots.answer(LIST, Caller(caller), Room::Length, || vec![7]);
        }
        assert_eq!(snapshots.0.lock().len(), MOST);
    }
}
