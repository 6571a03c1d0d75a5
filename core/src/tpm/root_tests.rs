//! Tests of the file `.storage-root`, which records the storage root key.

use super::*;

/// A test double of the file `.storage-root`. It returns the given content.
#[derive(Debug)]
struct Record(Result<Option<Vec<u8>>, RecordError>);

impl StorageRootRecord for Record {
    fn path(&self) -> PathBuf {
        "/keys/.storage-root".into()
    }

    fn accepting(&self) -> String {
        "mv it away".into()
    }

    fn recall(&self) -> Result<Option<Vec<u8>>, RecordError> {
        self.0.clone()
    }

    fn master(&self) -> Option<Vec<u8>> {
        None
    }

    fn keep(&self, _: &[u8]) -> Result<bool, String> {
        Ok(false)
    }

    fn forget(&self) -> Result<(), String> {
        Ok(())
    }
}

/// An administrator may copy and run a printed command. After a temporary fault the message must
/// therefore not contain the command that removes the file `.storage-root`.
#[test]
fn the_memory_is_moved_away_only_where_it_is_damaged() {
    let of = |recalled| StorageRoot::remembered_by(Arc::new(Record(recalled)));
    let unread = of(Err(RecordError::Unread("Too many open files".into())));
    let Err(TpmError::Unread(why)) = unread.remembered() else {
        panic!("the storage root key is not known now");
    };
    assert!(
        why.contains("try again") && !why.contains("mv it away"),
        "{why}"
    );
    for recalled in [
        Err(RecordError::Damaged("no digits".into())),
        Ok(Some(vec![9])),
    ] {
        let Err(TpmError::Distrusted(why)) = of(recalled).remembered() else {
            panic!("the record is damaged");
        };
        assert!(why.contains("mv it away"), "{why}");
    }
    assert_eq!(of(Ok(None)).check_none_remembered(), Ok(()));
    let known = of(Ok(Some(vec![0, 7]))).check_none_remembered();
    assert!(matches!(known, Err(TpmError::Distrusted(_))));
}

#[test]
fn what_is_remembered_is_read_again_or_refused() {
    for by_certificate in [true, false] {
        let one = RootEntry {
            name: vec![0, 0x0B, 7],
            by_certificate,
        };
        assert_eq!(RootEntry::parse(&one.content()), Some(one));
    }
    for wrong in [&[][..], &[0], &[1], &[2, 0, 0x0B]] {
        assert_eq!(RootEntry::parse(wrong), None, "{wrong:?}");
    }
}
