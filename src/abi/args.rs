//! Reads from and writes to the caller's memory.

use crate::error::Error;
use crate::mechanism::cipher::tag_length;
use crate::mechanism::derive::kdf_of;
use crate::mechanism::encrypt::oaep_hashes;
use crate::mechanism::params::{Parameter, Shape};
use crate::mechanism::table::Mechanism;
use crate::object::Object;
use crate::output::{Answer, Room, Secret};
use crate::template::Template;
use cryptoki_sys::*;
use std::mem::size_of;
use std::ptr;
use std::slice;

/// The largest number of attributes in a template. No object has more attributes.
const MOST_ATTRIBUTES: usize = 1024;
/// The largest sum of the lengths of all values of a template, in bytes. No stored object has more.
const LONGEST_VALUES: usize = 1 << 20;
/// The largest length in bytes of a PIN, and of data that a mechanism's parameter points to.
const LONGEST_PART: CK_ULONG = 1 << 16;

/// Calls `then` with the caller's bytes. Calls `then` with `None` if the pointer is NULL and the
/// length is not 0. Also calls it with `None` if the length exceeds the address space.
///
/// # Safety
///
/// `pointer` is NULL or valid for reads of `length` bytes.
pub(super) unsafe fn borrow<R>(
    pointer: *const CK_BYTE,
    length: CK_ULONG,
    then: impl FnOnce(Option<&[u8]>) -> R,
) -> R {
    match usize::try_from(length) {
        Ok(0) => then(Some(&[])),
        Ok(length) if !pointer.is_null() && isize::try_from(length).is_ok() => {
            // SAFETY: the pointer is not NULL. By this function's contract it is valid for `length`
            // bytes, and the length is within isize. Bytes need no alignment. The slice cannot
            // outlive `then`.
            then(Some(unsafe { slice::from_raw_parts(pointer, length) }))
        }
        _ => then(None),
    }
}

/// Reads one value. Returns `None` if the pointer is NULL.
///
/// # Safety
///
/// `pointer` is NULL or valid for a read of `T`. No alignment is necessary. Every bit pattern is a
/// `T`.
pub(super) unsafe fn read<T: Copy>(pointer: *const T) -> Option<T> {
    // SAFETY: the pointer is not NULL, so by this function's contract it is valid.
    (!pointer.is_null()).then(|| unsafe { ptr::read_unaligned(pointer) })
}

/// Writes one value. `what` names the argument for the error if the pointer is NULL.
///
/// # Safety
///
/// `pointer` is NULL or valid for a write of `T`. No alignment is necessary.
pub(super) unsafe fn write<T: Copy>(
    pointer: *mut T,
    value: T,
    what: &'static str,
) -> Result<(), Error> {
    if pointer.is_null() {
        return Err(Error::ArgumentsBad(what));
    }
    // SAFETY: the pointer is not NULL, so by this function's contract it is valid.
    unsafe { ptr::write_unaligned(pointer, value) };
    Ok(())
}

/// Returns the size of the caller's buffer. Returns `None` if the length pointer is NULL.
///
/// # Safety
///
/// `length` is NULL or valid for a read.
pub(super) unsafe fn room<T>(buffer: *const T, length: *const CK_ULONG) -> Option<Room> {
    if length.is_null() {
        return None;
    }
    // SAFETY: the pointer is not NULL, so by this function's contract it is valid.
    let capacity = unsafe { ptr::read_unaligned(length) };
    Some(match buffer.is_null() {
        true => Room::Length,
        false => Room::Bytes(usize::try_from(capacity).unwrap_or(usize::MAX)),
    })
}

/// Writes the length of the answer, and then its bytes if the answer has bytes.
///
/// # Safety
///
/// `length` is valid for a write. `buffer` is valid for as many bytes as [`room`] read from
/// `length`.
pub(super) unsafe fn give(
    buffer: *mut CK_BYTE,
    length: *mut CK_ULONG,
    answer: Answer,
) -> Result<(), Error> {
    let (count, result, bytes) = match &answer {
        Answer::Length(count) => (*count, Ok(()), None),
        Answer::TooSmall(count) => (*count, Err(Error::BufferTooSmall), None),
        Answer::Bytes(bytes) => (bytes.len(), Ok(()), Some(bytes)),
        Answer::Secret(bytes) => (bytes.len(), Ok(()), Some(&**bytes)),
    };
    if let Some(bytes) = bytes {
        // SAFETY: an answer has bytes only if they fit into Room::Bytes (see `Room::refuses`).
        // Therefore `buffer` is not NULL and is large enough. The module's Vec does not overlap the
        // buffer.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), buffer, bytes.len()) };
    }
    // SAFETY: each caller obeys the section `# Safety` of this function.
    unsafe { write(length, count as CK_ULONG, "the length pointer is NULL") }?;
    result
}

/// Writes a list: first the number of items, and then the items if they fit into the buffer.
/// `items` is called with the size of the buffer, counted in items.
///
/// # Safety
///
/// `list` is NULL or valid for writes of `*count` items; `count` is NULL or valid for reads and
/// writes.
pub(super) unsafe fn give_list<T: Copy, L: AsRef<[T]>>(
    list: *mut T,
    count: *mut CK_ULONG,
    items: impl FnOnce(Room) -> L,
) -> Result<(), Error> {
    // SAFETY: each caller obeys the section `# Safety` of this function.
    let room = unsafe { room(list, count) }.ok_or(Error::ArgumentsBad("the count is NULL"))?;
    let items = items(room);
    let items = items.as_ref();
    let refused = room.refuses(items.len());
    if refused.is_none() {
        for (n, item) in items.iter().enumerate() {
            // SAFETY: `n` is below the count that the caller gave for `list`.
            unsafe { ptr::write_unaligned(list.add(n), *item) };
        }
    }
    // SAFETY: each caller obeys the section `# Safety` of this function. `room` checked that `count` is not NULL.
    unsafe { write(count, items.len() as CK_ULONG, "the count is NULL") }?;
    match refused {
        Some(Answer::TooSmall(_)) => Err(Error::BufferTooSmall),
        _ => Ok(()),
    }
}

/// Copies a template from the caller's memory.
///
/// # Safety
///
/// `attributes` is NULL or valid for reads of `count` items, each with a `pValue` that is NULL or
/// valid for reads of its `ulValueLen`.
pub(super) unsafe fn template(
    attributes: *const CK_ATTRIBUTE,
    count: CK_ULONG,
) -> Result<Template, Error> {
    let count = items(attributes, count)?;
    let mut copy = Vec::new();
    copy.try_reserve_exact(count)
        .map_err(|_| Error::HostMemory)?;
    let mut left = LONGEST_VALUES;
    for n in 0..count {
        // SAFETY: `n` is below `count`, and `items` checked that the whole array is addressable.
        let CK_ATTRIBUTE {
            type_,
            pValue,
            ulValueLen,
        } = unsafe { ptr::read_unaligned(attributes.add(n)) };
        // The length is checked before the value is read. With a wrong length, the read would leave
        // the caller's memory.
        left = usize::try_from(ulValueLen)
            .ok()
            .and_then(|length| left.checked_sub(length))
            .ok_or(Error::ArgumentsBad("the template's values are too long"))?;
        // SAFETY: each caller obeys the section `# Safety` of this function.
        let value = unsafe {
            borrow(pValue.cast(), ulValueLen, |value| {
                value.map(try_copy).transpose()
            })
        }?;
        copy.push((type_, value.ok_or(Error::AttributeValueInvalid)?));
    }
    Ok(Template(copy))
}

/// Copies bytes. Returns an error if memory is exhausted, and does not end the process. The copy is
/// wiped when it is dropped.
fn try_copy(bytes: &[u8]) -> Result<Secret, Error> {
    let mut copy = Secret::default();
    copy.try_reserve_exact(bytes.len())
        .map_err(|_| Error::HostMemory)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Fills a template with an object's values (section 5.7.5). Each item gets its length or
/// CK_UNAVAILABLE_INFORMATION, even if another item has an error.
///
/// # Safety
///
/// `attributes` is NULL or valid for reads and writes of `count` items, each with a `pValue` that
/// is NULL or valid for writes of its `ulValueLen`.
pub(super) unsafe fn fill(
    attributes: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    object: &Object,
) -> Result<(), Error> {
    let mut result = Ok(());
    for n in 0..items(attributes, count)? {
        // SAFETY: `n` is below `count`, and `items` checked that the whole array is addressable.
        let item = unsafe { attributes.add(n) };
        // SAFETY: each caller obeys the section `# Safety` of this function.
        let mut asked = unsafe { ptr::read_unaligned(item) };
        let outcome = object.attribute(asked.type_).and_then(|value| {
            let room = match asked.pValue.is_null() {
                true => Room::Length,
                false => Room::Bytes(usize::try_from(asked.ulValueLen).unwrap_or(usize::MAX)),
            };
            match room.refuses(value.len()) {
                Some(Answer::TooSmall(_)) => return Err(Error::BufferTooSmall),
                Some(_) => {}
                // SAFETY: the caller states that `pValue` takes `ulValueLen` bytes, and the value
                // is not longer. The value belongs to the module and does not overlap the caller's
                // memory.
                None => unsafe {
                    ptr::copy_nonoverlapping(value.as_ptr(), asked.pValue.cast(), value.len());
                },
            }
            Ok(value.len() as CK_ULONG)
        });
        match outcome {
            Ok(length) => asked.ulValueLen = length,
            Err(fault) => {
                asked.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                result = Err(fault);
            }
        }
        // SAFETY: the read at the same address above explains it.
        unsafe { ptr::write_unaligned(item, asked) };
    }
    result
}

/// Returns the number of items in a template. Fails if the number exceeds the limits.
fn items<T>(array: *const T, count: CK_ULONG) -> Result<usize, Error> {
    match usize::try_from(count) {
        Ok(0) => Ok(0),
        Ok(1..=MOST_ATTRIBUTES) if array.is_null() => {
            Err(Error::ArgumentsBad("the template is NULL"))
        }
        Ok(count @ 1..=MOST_ATTRIBUTES) => Ok(count),
        _ => Err(Error::ArgumentsBad(
            "the template has more than 1024 attributes",
        )),
    }
}

/// Copies a PIN. Returns `None` if the pointer is NULL.
///
/// # Safety
///
/// `pin` is NULL or valid for reads of `length` bytes.
pub(super) unsafe fn pin(
    pin: *const CK_UTF8CHAR,
    length: CK_ULONG,
) -> Result<Option<Secret>, Error> {
    const TOO_LONG: Error = Error::ArgumentsBad("ulPinLen is more than 64 KiB");
    if pin.is_null() {
        return Ok(None);
    }
    if length > LONGEST_PART {
        return Err(TOO_LONG);
    }
    // SAFETY: each caller obeys the section `# Safety` of this function.
    let copy = unsafe { borrow(pin, length, |pin| pin.map(try_copy).transpose()) }?;
    copy.map(Some).ok_or(TOO_LONG)
}

/// Copies the bytes that a mechanism's parameter points to. Returns `None` if the pointer is NULL
/// and the length is not 0. Also returns `None` if the length exceeds the limit.
///
/// # Safety
///
/// `pointer` is NULL or valid for reads of `length` bytes.
unsafe fn named(pointer: *const CK_BYTE, length: CK_ULONG) -> Option<Vec<u8>> {
    if length > LONGEST_PART {
        return None;
    }
    // SAFETY: each caller obeys the section `# Safety` of this function.
    let copy = unsafe { borrow(pointer, length, |bytes| bytes.map(try_copy)) };
    // The bytes are a label, shared data or a point. None of them is secret.
    copy.and_then(Result::ok).map(|bytes| bytes.to_vec())
}

/// Reads the parameter of CKM_RSA_PKCS_OAEP. Returns `None` if the parameter is invalid.
///
/// # Safety
///
/// The mechanism's parameter is NULL or valid for its length. Each pointer in the parameter is NULL
/// or valid for its length too.
unsafe fn oaep(given: &CK_MECHANISM) -> Option<Parameter> {
    // SAFETY: the parameter is NULL or valid for its length, which is the length of the struct.
    let parameter = unsafe { sized::<CK_RSA_PKCS_OAEP_PARAMS>(given) }?;
    // SAFETY: each caller obeys the section `# Safety` of this function.
    unsafe { oaep_of(parameter) }
}

/// Reads the parameter of CKM_RSA_AES_KEY_WRAP. Returns `None` if the parameter is invalid.
///
/// # Safety
///
/// The mechanism's parameter is NULL or valid for its length. Each pointer in the parameter is NULL
/// or valid for its length too.
unsafe fn rsa_aes(given: &CK_MECHANISM) -> Option<Parameter> {
    // SAFETY: the parameter is NULL or valid for its length, which is the length of the struct.
    let parameter = unsafe { sized::<CK_RSA_AES_KEY_WRAP_PARAMS>(given) }?;
    // SAFETY: the inner parameter is NULL or valid for a read, by the contract of this function.
    let inner = unsafe { read(parameter.pOAEPParams) }?;
    Some(Parameter::RsaAes {
        bits: parameter.ulAESKeyBits,
        // SAFETY: each caller obeys the section `# Safety` of this function.
        oaep: Box::new(unsafe { oaep_of(inner) }?),
    })
}

/// Reads the initial value of an AES key wrap. Returns `None` if the parameter is invalid.
///
/// # Safety
///
/// The mechanism's parameter is NULL or valid for its length.
unsafe fn initial(given: &CK_MECHANISM) -> Option<Parameter> {
    const LONGEST: CK_ULONG = 8;
    if given.ulParameterLen > LONGEST {
        return None;
    }
    // SAFETY: each caller obeys the section `# Safety` of this function.
    unsafe { named(given.pParameter.cast(), given.ulParameterLen) }.map(Parameter::Initial)
}

/// Reads CK_RSA_PKCS_OAEP_PARAMS and copies the label. Returns `None` if the parameter is invalid.
/// If the hash is not supported, the label is not read.
///
/// # Safety
///
/// The data that the parameter points to is NULL or valid for its length.
unsafe fn oaep_of(parameter: CK_RSA_PKCS_OAEP_PARAMS) -> Option<Parameter> {
    oaep_hashes(parameter.hashAlg, parameter.mgf)?;
    let (label, length) = (parameter.pSourceData.cast(), parameter.ulSourceDataLen);
    Some(Parameter::Oaep {
        hash: parameter.hashAlg,
        mgf: parameter.mgf,
        source: parameter.source,
        // SAFETY: each caller obeys the section `# Safety` of this function.
        label: unsafe { named(label, length) }?,
    })
}

/// Reads the parameter of CKM_AES_GCM. Returns `None` if the parameter is invalid. ulIvBits is
/// ignored: the standard uses ulIvLen, and clients leave ulIvBits at 0. If the tag length is not
/// supported, the data is not read.
///
/// # Safety
///
/// The mechanism's parameter is NULL or valid for its length. Each pointer in the parameter is NULL
/// or valid for its length too.
unsafe fn gcm(given: &CK_MECHANISM) -> Option<Parameter> {
    // SAFETY: the parameter is NULL or valid for its length, which is the length of the struct.
    let parameter = unsafe { sized::<CK_GCM_PARAMS>(given) }?;
    tag_length(parameter.ulTagBits)?;
    Some(Parameter::Gcm {
        // SAFETY: each caller obeys the section `# Safety` of this function.
        iv: unsafe { named(parameter.pIv, parameter.ulIvLen) }?,
        // SAFETY: each caller obeys the section `# Safety` of this function.
        aad: unsafe { named(parameter.pAAD, parameter.ulAADLen) }?,
        tag_bits: parameter.ulTagBits,
    })
}

/// Reads the parameter of an ECDH mechanism. Returns `None` if the parameter is invalid. If the key
/// derivation function is not supported, the data is not read.
///
/// # Safety
///
/// The mechanism's parameter is NULL or valid for its length. Each pointer in the parameter is NULL
/// or valid for its length too.
unsafe fn ecdh(given: &CK_MECHANISM) -> Option<Parameter> {
    // SAFETY: the parameter is NULL or valid for its length, which is the length of the struct.
    let parameter = unsafe { sized::<CK_ECDH1_DERIVE_PARAMS>(given) }?;
    kdf_of(parameter.kdf)?;
    Some(Parameter::Ecdh {
        kdf: parameter.kdf,
        // SAFETY: each caller obeys the section `# Safety` of this function.
        shared: unsafe { named(parameter.pSharedData, parameter.ulSharedDataLen) }?,
        // SAFETY: each caller obeys the section `# Safety` of this function.
        public: unsafe { named(parameter.pPublicData, parameter.ulPublicDataLen) }?,
    })
}

/// Reads a parameter. Returns `None` unless its stated length is the length of `T`.
///
/// # Safety
///
/// The mechanism's parameter is NULL or valid for its length. Every bit pattern is a `T`.
unsafe fn sized<T: Copy>(given: &CK_MECHANISM) -> Option<T> {
    match usize::try_from(given.ulParameterLen) {
        // SAFETY: the length is the length of a `T`. The contract of this function guarantees the
        // rest.
        Ok(length) if length == size_of::<T>() => unsafe { read(given.pParameter.cast()) },
        _ => None,
    }
}

/// Reads a CK_RSA_PKCS_PSS_PARAMS parameter. Returns `None` if the parameter is invalid.
///
/// # Safety
///
/// The mechanism's parameter is NULL or valid for its length.
unsafe fn pss(given: &CK_MECHANISM) -> Option<Parameter> {
    // SAFETY: the parameter is NULL or valid for its length, which is the length of the struct.
    let parameter = unsafe { sized::<CK_RSA_PKCS_PSS_PARAMS>(given) }?;
    Some(Parameter::Pss {
        hash: parameter.hashAlg,
        mgf: parameter.mgf,
        salt: parameter.sLen,
    })
}

/// Finds a mechanism in the table and reads its parameter. Returns `None` if `mechanism` is NULL.
/// `call` is the flag of the PKCS#11 call, for example CKF_SIGN for C_SignInit. If the mechanism is
/// not available in that call, the parameter is not read.
///
/// # Errors
///
/// [`Error::MechanismInvalid`] if the mechanism is not available in this call.
/// [`Error::MechanismParamInvalid`] if the parameter is not valid.
///
/// # Safety
///
/// `mechanism` is NULL or valid for a read. Its parameter is NULL or valid for its length. Each
/// pointer in the parameter is NULL or valid for its length too.
pub(super) unsafe fn mechanism(
    mechanism: *const CK_MECHANISM,
    call: CK_FLAGS,
) -> Result<Option<(&'static Mechanism, Parameter)>, Error> {
    // SAFETY: each caller obeys the section `# Safety` of this function.
    let Some(given) = (unsafe { read(mechanism) }) else {
        return Ok(None);
    };
    let row = Mechanism::find(given.mechanism, call)?;
    let parameter = match row.shape {
        _ if given.ulParameterLen == 0 => Some(Parameter::None),
        Shape::None => None,
        // SAFETY: each caller obeys the section `# Safety` of this function.
        Shape::Pss => unsafe { pss(&given) },
        // SAFETY: each caller obeys the section `# Safety` of this function.
        Shape::Oaep => unsafe { oaep(&given) },
        // SAFETY: each caller obeys the section `# Safety` of this function.
        Shape::Ecdh => unsafe { ecdh(&given) },
        // SAFETY: each caller obeys the section `# Safety` of this function.
        Shape::RsaAes => unsafe { rsa_aes(&given) },
        // SAFETY: each caller obeys the section `# Safety` of this function.
        Shape::Initial => unsafe { initial(&given) },
        // SAFETY: each caller obeys the section `# Safety` of this function.
        Shape::Iv => unsafe { sized::<[CK_BYTE; 16]>(&given) }.map(Parameter::Iv),
        // SAFETY: each caller obeys the section `# Safety` of this function.
        Shape::Gcm => unsafe { gcm(&given) },
        // SAFETY: each caller obeys the section `# Safety` of this function.
        Shape::CodeLength => unsafe { sized(&given) }.map(Parameter::CodeLength),
    };
    let parameter = parameter.unwrap_or(Parameter::Other);
    row.check_shape(&parameter)?;
    Ok(Some((row, parameter)))
}

/// Writes text into a field of fixed width. Blanks fill the field, and no NUL is written.
pub(super) fn padded<const N: usize>(text: &str) -> [CK_UTF8CHAR; N] {
    let mut field = [b' '; N];
    let text = text.as_bytes();
    let length = text.len().min(N);
    field[..length].copy_from_slice(&text[..length]);
    field
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
