//! A connection that is kept, and the answer that a command of before may still owe.

use super::{CommandClass, Timing, TransportError, Wait};

/// A kept connection.
pub(in crate::tpm) trait Endpoint {
    /// Sends a command.
    fn send(&mut self, command: &[u8], wait: &Wait<'_>) -> Result<(), TransportError>;
    /// The next answer.
    fn receive(&mut self, wait: &Wait<'_>) -> Result<Vec<u8>, TransportError>;
}

/// A kept connection, opened at the first command, and whether an answer is owed there: that of a
/// command that timed out. It is awaited before the next command is sent.
pub(in crate::tpm) struct KeptOpen<K> {
    open: Option<K>,
    owed: bool,
}

impl<K: Endpoint> KeptOpen<K> {
    pub(in crate::tpm) fn new() -> Self {
        Self {
            open: None,
            owed: false,
        }
    }

    /// The connection, if there is one; `None` in its place ends it.
    pub(in crate::tpm) fn open(&mut self) -> &mut Option<K> {
        &mut self.open
    }

    /// One command, one answer, over the connection, which `open` opens if there is none.
    pub(in crate::tpm) fn transact(
        &mut self,
        open: impl FnOnce() -> Result<K, TransportError>,
        command: &[u8],
        class: CommandClass,
        timing: &Timing,
    ) -> Result<Vec<u8>, TransportError> {
        let kept = match &mut self.open {
            Some(kept) => kept,
            none => {
                self.owed = false;
                none.insert(open()?)
            }
        };
        let owed_before = self.owed;
        let answer = exchange(kept, &mut self.owed, command, class, timing);
        let is_lost = match answer {
            Err(TransportError::Broken(_)) => true,
            // The owed answer may have been thrown away: it does not come a second time.
            Err(TransportError::Timeout(_)) => owed_before,
            _ => false,
        };
        if is_lost {
            self.open = None;
        }
        answer
    }
}

fn exchange<K: Endpoint>(
    kept: &mut K,
    owed: &mut bool,
    command: &[u8],
    class: CommandClass,
    timing: &Timing,
) -> Result<Vec<u8>, TransportError> {
    let before = timing.wait(CommandClass::Ordinary);
    if *owed {
        kept.receive(&before)?;
        *owed = false;
    }
    // Some drivers do the whole command while it is written.
    let _generation = timing.note_start(class);
    kept.send(command, &before)?;
    *owed = true;
    let answer = kept.receive(&timing.wait(class))?;
    *owed = false;
    Ok(answer)
}
