//! A TPM inside the process. The fuzz targets answer its commands. Only the builds of `fuzz/`
//! contain this transport.

use super::{CommandClass, Timing, Transport, TransportError, frame_size};
use std::cell::RefCell;

/// The value of the setting `tcti` that selects this transport.
pub const TCTI: &str = "swtpm:path=/in-memory";
/// The path in [`TCTI`].
pub(super) const PATH: &str = "/in-memory";

/// A function that answers a command with the bytes of a response. `None` closes the connection
/// without an answer.
pub type Answerer = Box<dyn FnMut(&[u8]) -> Option<Vec<u8>>>;

thread_local! {
    static ANSWERER: RefCell<Option<Answerer>> = const { RefCell::new(None) };
}

/// Sets the function that answers the commands of this thread. With `None` no TPM can be reached.
pub fn install(answerer: Option<Answerer>) {
    ANSWERER.with(|place| *place.borrow_mut() = answerer);
}

/// The transport that calls the function of [`install`].
pub(super) struct Memory;

impl Transport for Memory {
    fn transact(
        &mut self,
        command: &[u8],
        _: CommandClass,
        _: &Timing,
    ) -> Result<Vec<u8>, TransportError> {
        let answered = ANSWERER.with(|place| match &mut *place.borrow_mut() {
            Some(answerer) => Ok(answerer(command)),
            None => Err(TransportError::Unreachable("no TPM is installed".into())),
        })?;
        let answer = answered.ok_or(TransportError::Broken("the connection ended".into()))?;
        // As with a socket, the header contains the size of the answer.
        match frame_size(&answer)? {
            size if size <= answer.len() => Ok(answer[..size].to_vec()),
            _ => Err(TransportError::Broken(
                "the answer is shorter than its header says".into(),
            )),
        }
    }

    fn abandon(&mut self) {}
}
