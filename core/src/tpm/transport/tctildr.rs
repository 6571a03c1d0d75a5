//! Transports that only libtss2 provides (tpm2-abrmd and others). The library libtss2-tctildr is
//! loaded at the first command. Its context transmits the bytes of the commands (TCG, TSS 2.0 TPM
//! Command Transmission Interface API).
//!
//! libtss2 sets no close-on-exec, and may write to the host's stderr. The environment variable
//! `TSS2_LOG=all+none` prevents these lines. A time limit works if the transport takes a timeout or
//! has a handle to poll. The transports for tpm2-abrmd, devices and the simulator do. The transport
//! for swtpm waits for ever. The opening of a transport has the transport's own limit. For
//! tpm2-abrmd this limit is 25 s. A forked child lacks the GLib thread of this transport.

use super::kept_open::{Endpoint, KeptOpen};
use super::socket::poll_fd;
use super::{CommandClass, FRAME_MAX, Timing, Transport, TransportError, Wait};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::event::PollFlags;
use std::ffi::{CString, c_char};
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use tss_esapi::tss2_esys::{
    TSS2_RC, TSS2_TCTI_CONTEXT, TSS2_TCTI_CONTEXT_COMMON_V1, TSS2_TCTI_POLL_HANDLE, size_t,
};

const LOADER: &str = "libtss2-tctildr.so.0";
/// RTLD_NODELETE of <dlfcn.h>: the library stays loaded, because it may have threads and handlers.
const RTLD_NODELETE: i32 = 0x1000;
/// The bits of a response code that contain the error. The other bits name the software layer.
const CODE: TSS2_RC = 0xFFFF;
/// TSS2_BASE_RC_TRY_AGAIN, TSS2_BASE_RC_BAD_VALUE.
const TRY_AGAIN: TSS2_RC = 9;
const BAD_VALUE: TSS2_RC = 11;
/// TSS2_TCTI_TIMEOUT_BLOCK.
const FOREVER: i32 = -1;
/// The maximum number of poll handles. No transport has more.
const MOST_HANDLES: usize = 8;

type Initialize = unsafe extern "C" fn(*const c_char, *mut *mut TSS2_TCTI_CONTEXT) -> TSS2_RC;
type Finalize = unsafe extern "C" fn(*mut *mut TSS2_TCTI_CONTEXT);

/// A transport of libtss2, opened at the first command.
pub(super) struct Tctildr {
    conf: String,
    open: KeptOpen<TctiContext>,
}

/// An open context of the loader.
struct TctiContext {
    raw: NonNull<TSS2_TCTI_CONTEXT>,
    finalize: Finalize,
}

// SAFETY: A context belongs to no thread. The TCTI specification only forbids concurrent calls of
// its functions, and all calls need `&mut`.
unsafe impl Send for TctiContext {}

impl Tctildr {
    /// Creates the transport.
    ///
    /// # Errors
    ///
    /// Fails if the string names a configuration that tpm2-abrmd does not know.
    pub(super) fn new(conf: &str) -> Result<Self, String> {
        if let Some(rest) = conf.strip_prefix("tabrmd")
            && !is_of_tabrmd(rest)
        {
            return Err(format!(
                "{conf}: expected tabrmd:bus_type=system or session, and bus_name=NAME if \
                 tpm2-abrmd has another name on the bus"
            ));
        }
        Ok(Self {
            conf: conf.to_owned(),
            open: KeptOpen::new(),
        })
    }
}

/// True if tpm2-abrmd knows what follows its name (Tss2_Tcti_Tabrmd_Init(3)). The parser of the crate
/// tss-esapi would bring half a megabyte of regular expressions into the module.
fn is_of_tabrmd(rest: &str) -> bool {
    let is_element = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !text.is_empty() && text.bytes().all(is_part)
    };
    let is_known = |field: &str| match field.split_once('=') {
        Some(("bus_type", kind)) => matches!(kind, "system" | "session"),
        Some(("bus_name", name)) => name.contains('.') && name.split('.').all(is_element),
        _ => true,
    };
    match rest.strip_prefix(':') {
        Some(fields) => fields.split(',').all(is_known),
        None => rest.is_empty(),
    }
}

impl TctiContext {
    fn new(conf: &str) -> Result<Self, TransportError> {
        let unreachable = |why: String| TransportError::Unreachable(format!("{conf}: {why}"));
        let missing = |error| {
            unreachable(format!(
                "{LOADER} cannot be loaded ({error}); it is part of tpm2-tss"
            ))
        };
        let name = CString::new(conf).map_err(|error| unreachable(error.to_string()))?;
        // SAFETY: The library is a part of libtss2. Its constructors have no preconditions.
        let library = unsafe { Library::open(Some(LOADER), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) };
        let library = library.map_err(missing)?;
        // SAFETY: tss2_tctildr.h declares both functions with these types.
        let functions = unsafe {
            let initialize = library.get::<Initialize>(b"Tss2_TctiLdr_Initialize\0");
            let finalize = library.get::<Finalize>(b"Tss2_TctiLdr_Finalize\0");
            initialize.and_then(|initialize| Ok((*initialize, *finalize?)))
        };
        let (initialize, finalize) = functions.map_err(missing)?;
        let mut raw = ptr::null_mut();
        // SAFETY: The name ends with a zero and is copied. The function writes the context to
        // `raw`. The code of the library stays loaded (RTLD_NODELETE).
        let code = unsafe { initialize(name.as_ptr(), &raw mut raw) };
        match NonNull::new(raw) {
            Some(raw) if code == 0 => Ok(Self { raw, finalize }),
            _ => Err(unreachable(format!(
                "libtss2 cannot open the TPM (0x{code:X}): does it exist, and may this user use it?"
            ))),
        }
    }

    /// Returns the functions of the context.
    fn functions(&self) -> TSS2_TCTI_CONTEXT_COMMON_V1 {
        let raw = self.raw.cast::<TSS2_TCTI_CONTEXT_COMMON_V1>();
        // SAFETY: Each context begins with this structure, whatever its version, and lives as long
        // as `self`. The structure is plain data, so it may be copied.
        unsafe { raw.read() }
    }

    /// Waits for an answer, if the transport has a handle to poll.
    fn await_answer(&mut self, wait: &Wait<'_>) -> Result<(), TransportError> {
        let Some(poll_handles) = self.functions().getPollHandles else {
            return Ok(());
        };
        let mut handles = [TSS2_TCTI_POLL_HANDLE {
            fd: -1,
            events: 0,
            revents: 0,
        }; MOST_HANDLES];
        let mut count = handles.len() as size_t;
        // SAFETY: `handles` has room for `count` handles. Only this call writes to `handles` and
        // `count`.
        let code = unsafe { poll_handles(self.raw.as_ptr(), handles.as_mut_ptr(), &raw mut count) };
        match &handles[..] {
            [handle, ..] if code == 0 && count == 1 && handle.fd >= 0 => {
                // SAFETY: The transport closes the descriptor only when it is finalised. This
                // function has `&mut self`, so no other call can finalise the transport now. If the
                // host closed the descriptor, poll(2) fails, or waits for the new file with this
                // number. This function reads nothing through the descriptor.
                let fd = unsafe { BorrowedFd::borrow_raw(handle.fd) };
                poll_fd(fd, PollFlags::IN, wait)
            }
            // The function is not implemented, or gives several handles without a documented
            // meaning.
            _ => Ok(()),
        }
    }
}

impl Endpoint for TctiContext {
    fn send(&mut self, command: &[u8], _: &Wait<'_>) -> Result<(), TransportError> {
        let transmit = self.functions().transmit.ok_or_else(lacking)?;
        // SAFETY: The context is open. The call only reads the command.
        let code =
            unsafe { transmit(self.raw.as_ptr(), command.len() as size_t, command.as_ptr()) };
        succeeded("sending", code)
    }

    fn receive(&mut self, wait: &Wait<'_>) -> Result<Vec<u8>, TransportError> {
        let receive = self.functions().receive.ok_or_else(lacking)?;
        let mut frame = vec![0; FRAME_MAX];
        let mut forever = false;
        loop {
            self.await_answer(wait)?;
            let left = wait.left()?;
            let limit = match forever {
                true => FOREVER,
                false => i32::try_from(left.as_millis()).unwrap_or(i32::MAX),
            };
            let mut size = frame.len() as size_t;
            // SAFETY: `frame` has room for `size` bytes. Only this call writes to `frame` and
            // `size`.
            let code =
                unsafe { receive(self.raw.as_ptr(), &raw mut size, frame.as_mut_ptr(), limit) };
            match code & CODE {
                // This transport supports no timeout.
                BAD_VALUE if !forever => forever = true,
                // A part of the answer arrived, or the time has passed.
                TRY_AGAIN => {}
                _ => {
                    succeeded("receiving", code)?;
                    frame.truncate(usize::try_from(size).unwrap_or(usize::MAX));
                    return Ok(frame);
                }
            }
        }
    }
}

impl Drop for TctiContext {
    fn drop(&mut self) {
        let mut raw = self.raw.as_ptr();
        // SAFETY: The context came from this loader and is not used afterwards.
        unsafe { (self.finalize)(&raw mut raw) };
    }
}

fn lacking() -> TransportError {
    TransportError::Broken("the transport library lacks a function".into())
}

fn succeeded(doing: &str, code: TSS2_RC) -> Result<(), TransportError> {
    match code {
        0 => Ok(()),
        code => Err(TransportError::broken(
            doing,
            format!("libtss2: 0x{code:X}"),
        )),
    }
}

impl Transport for Tctildr {
    fn transact(
        &mut self,
        command: &[u8],
        class: CommandClass,
        timing: &Timing,
    ) -> Result<Vec<u8>, TransportError> {
        let conf = &self.conf;
        self.open
            .transact(|| TctiContext::new(conf), command, class, timing)
    }

    fn abandon(&mut self) {
        // Finalising would end the parent's connection, so the memory of the context is not freed.
        std::mem::forget(self.open.open().take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_tabrmd_is_checked_before_it_is_used() {
        for known in [
            "",
            ":",
            ":bus_type=session",
            ":bus_name=com.example.Tabrmd-2,bus_type=system",
        ] {
            assert!(is_of_tabrmd(known), "{known}");
        }
        for wrong in [
            "x",
            ":bus_type=",
            ":bus_type=user",
            ":bus_name=tabrmd",
            ":bus_name=a..b",
            ":bus_name=a.b c",
        ] {
            assert!(!is_of_tabrmd(wrong), "{wrong}");
        }
        let said = Tctildr::new("tabrmd:bus_type=user").err().unwrap();
        assert!(said.contains("bus_type=system"), "{said}");
    }
}
