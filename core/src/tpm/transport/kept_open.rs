//! A connection that stays open. The answer to an earlier command may still be missing on it.

use super::{CommandClass, Timing, TransportError, Wait};

/// An open connection.
pub(in crate::tpm) trait Endpoint {
    /// Sends a command.
    fn send(&mut self, command: &[u8], wait: &Wait<'_>) -> Result<(), TransportError>;
    /// Receives the next answer.
    fn receive(&mut self, wait: &Wait<'_>) -> Result<Vec<u8>, TransportError>;
}

/// A connection that is opened at the first command and stays open. `owed` is true if the answer to
/// a command that timed out has not arrived yet. This answer is received before the next command is
/// sent.
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

    /// Returns the connection, if it is open. The caller may set it to `None` to close it.
    pub(in crate::tpm) fn open(&mut self) -> &mut Option<K> {
        &mut self.open
    }

    /// Sends a command and returns its answer. `open` opens the connection if needed.
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
            // The late answer of the earlier command may have been discarded. This answer would not
            // arrive a second time.
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
    // The generation is recorded before the write, because some drivers execute the whole command
    // during the write.
    let _generation = timing.note_start(class);
    kept.send(command, &before)?;
    *owed = true;
    let answer = kept.receive(&timing.wait(class))?;
    *owed = false;
    Ok(answer)
}
