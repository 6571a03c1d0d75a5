//! The links: who carries the commands to the TPM.

mod channel;
mod device;
#[cfg(feature = "tss")]
mod esapi;
#[cfg(test)]
mod vectors;
mod wire;

use super::tcti::{Socket, Tcti};
use super::{Link, TpmError};
use std::time::Duration;

/// No TPM has so many handles; one that goes on telling of more is not believed.
const MOST_HANDLES: usize = 10_000;

/// The link for a TCTI string; no command is sent before the first call of a method.
///
/// `limit` bounds every command on the wire. libtss2 has no such bound, so that a link through it
/// waits as long as its transport does.
pub(super) fn open(tcti: &Tcti, limit: Duration) -> Result<Box<dyn Link>, TpmError> {
    Ok(match tcti {
        Tcti::Device(path) => Box::new(wire::Wire::new(device::Device::new(path.clone()), limit)),
        Tcti::Swtpm(socket) => Box::new(wire::Wire::new(
            channel::Channel::new(socket.clone(), channel::Framing::Raw),
            limit,
        )),
        Tcti::Mssim(host, port) => Box::new(wire::Wire::new(
            channel::Channel::new(Socket::Tcp(host.clone(), *port), channel::Framing::Mssim),
            limit,
        )),
        #[cfg(feature = "tss")]
        Tcti::Esapi(conf) => Box::new(esapi::Esapi::open(conf)?),
        #[cfg(not(feature = "tss"))]
        Tcti::Esapi(conf) => {
            return Err(TpmError::Unsupported(format!(
                "{conf}: this build has no libtss2 (feature tss)"
            )));
        }
    })
}
