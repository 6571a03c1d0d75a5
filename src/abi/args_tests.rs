//! Tests under Miri that the module reads and writes only the caller's memory. Each buffer has an
//! allocation of its exact length. Its address is odd, so that nothing relies on alignment.

use super::*;

/// Memory of a caller. Its bytes begin at an odd address.
struct Caller(Box<[u8]>);

impl Caller {
    fn new(bytes: &[u8]) -> Self {
        Self([&[0xEE], bytes].concat().into())
    }

    /// Makes memory that holds this value.
    fn of<T: Copy>(value: T) -> Self {
        let mut caller = Self::new(&vec![0; size_of::<T>()]);
        // SAFETY: there is room for one `T` of any alignment.
        unsafe { caller.at::<T>().write_unaligned(value) };
        caller
    }

    fn at<T>(&mut self) -> *mut T {
        self.0[1..].as_mut_ptr().cast()
    }

    fn read<T: Copy>(&mut self) -> T {
        assert!(self.0.len() > size_of::<T>());
        // SAFETY: the memory has the size of a `T`.
        unsafe { self.at::<T>().read_unaligned() }
    }
}

fn attribute(kind: CK_ATTRIBUTE_TYPE, value: &mut Caller, length: CK_ULONG) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: value.at(),
        ulValueLen: length,
    }
}

fn mechanism_of<T: Copy>(kind: CK_MECHANISM_TYPE, parameter: &mut Caller) -> Caller {
    Caller::of(CK_MECHANISM {
        mechanism: kind,
        pParameter: parameter.at(),
        ulParameterLen: size_of::<T>() as CK_ULONG,
    })
}

/// Returns the parameter that [`mechanism`] reads for this call.
fn read_mechanism(given: &mut Caller, call: CK_FLAGS) -> Result<Parameter, Error> {
    // SAFETY: each pointer is valid for the length that stands beside it.
    let read = unsafe { mechanism(given.at(), call) }?;
    Ok(read.expect("not NULL").1)
}

#[test]
fn bytes_are_lent_where_the_length_can_be() {
    let mut data = Caller::new(b"data");
    let lent = |pointer, length| {
        // SAFETY: the pointer is NULL, or valid for the given length.
        unsafe { borrow(pointer, length, |bytes| bytes.map(<[u8]>::to_vec)) }
    };
    assert_eq!(lent(data.at(), 4).as_deref(), Some(&b"data"[..]));
    assert_eq!(lent(data.at(), 0).as_deref(), Some(&[][..]));
    assert_eq!(lent(ptr::null(), 0).as_deref(), Some(&[][..]));
    assert_eq!(lent(ptr::null(), 4), None);
    assert_eq!(lent(data.at(), CK_ULONG::MAX), None);
}

#[test]
fn answers_are_written_where_there_is_room() {
    for (room_for, expected) in [(5, Err(())), (6, Ok(())), (7, Ok(()))] {
        let mut buffer = Caller::new(&vec![0; room_for]);
        let mut length = Caller::of(room_for as CK_ULONG);
        // SAFETY: the buffer is valid for the length that `length` holds.
        let given = unsafe {
            let room = room(buffer.at::<u8>(), length.at()).expect("a length");
            let answer = match room.refuses(6) {
                Some(refused) => refused,
                None => Answer::Bytes(b"answer".to_vec()),
            };
            give(buffer.at(), length.at(), answer)
        };
        assert_eq!(given.map_err(drop), expected, "{room_for}");
        assert_eq!(length.read::<CK_ULONG>(), 6);
        assert_eq!(buffer.0[1..].starts_with(b"answer"), expected.is_ok());
    }
    let mut length = Caller::of::<CK_ULONG>(99);
    // SAFETY: a NULL buffer asks for the length.
    let asked = unsafe {
        assert!(matches!(
            room(ptr::null::<u8>(), length.at()),
            Some(Room::Length)
        ));
        give(ptr::null_mut(), length.at(), Answer::Length(6))
    };
    assert_eq!((asked, length.read::<CK_ULONG>()), (Ok(()), 6));
    // SAFETY: the length pointer is NULL, so nothing is read.
    assert!(unsafe { room(ptr::null::<u8>(), ptr::null()) }.is_none());
}

#[test]
fn a_list_is_written_whole_or_not_at_all() {
    for (room_for, expected) in [(1, [9, 9]), (2, [5, 6])] {
        let mut list = Caller::new(&[9_u64.to_ne_bytes(), 9_u64.to_ne_bytes()].concat());
        let mut count = Caller::of::<CK_ULONG>(room_for);
        // SAFETY: the list has space for two items.
        let given = unsafe { give_list(list.at::<u64>(), count.at(), |_| [5_u64, 6]) };
        assert_eq!(given.is_ok(), room_for == 2);
        assert_eq!(count.read::<CK_ULONG>(), 2);
        assert_eq!(list.read::<[u64; 2]>(), expected);
    }
}

#[test]
fn a_template_is_copied_or_refused() {
    let mut label = Caller::new(b"label");
    let good = attribute(CKA_LABEL, &mut label, 5);
    let null = CK_ATTRIBUTE {
        pValue: ptr::null_mut(),
        ..good
    };
    let long = CK_ATTRIBUTE {
        ulValueLen: CK_ULONG::MAX,
        ..good
    };
    let empty = CK_ATTRIBUTE {
        ulValueLen: 0,
        ..null
    };
    for (items, values) in [
        (vec![good, empty], Ok(vec![b"label".to_vec(), vec![]])),
        (vec![good, null], Err(Error::AttributeValueInvalid)),
        (
            vec![long],
            Err(Error::ArgumentsBad("the template's values are too long")),
        ),
    ] {
        let mut memory = Caller::new(&vec![0; items.len() * size_of::<CK_ATTRIBUTE>()]);
        for (n, item) in items.iter().enumerate() {
            // SAFETY: the memory has space for all items.
            unsafe { memory.at::<CK_ATTRIBUTE>().add(n).write_unaligned(*item) };
        }
        // SAFETY: the memory holds all items. Each value has its stated length, or is never read.
        let copied = unsafe { template(memory.at(), items.len() as CK_ULONG) };
        let copied = copied.map(|copy| {
            let values = copy.0.iter().map(|(_, value)| value.to_vec());
            values.collect::<Vec<_>>()
        });
        assert_eq!(copied, values);
    }
    // SAFETY: the count is impossible, so nothing is read.
    unsafe {
        assert!(template(ptr::null(), 1).is_err());
        assert!(template(label.at(), 1 << 40).is_err());
        assert!(template(ptr::null(), 0).is_ok_and(|copy| copy.0.is_empty()));
    }
}

#[test]
fn a_pin_is_copied_or_refused() {
    let mut typed = Caller::new(b"1234");
    // SAFETY: the pointer is NULL, or valid for the given length.
    unsafe {
        let copied = pin(typed.at(), 4).unwrap().map(|pin| pin.to_vec());
        assert_eq!(copied.as_deref(), Some(&b"1234"[..]));
        assert!(pin(ptr::null(), 4).is_ok_and(|pin| pin.is_none()));
        assert!(pin(typed.at(), LONGEST_PART + 1).is_err());
    }
}

#[test]
fn parameters_with_pointers_are_read() {
    let mut label = Caller::new(b"label");
    let inner = CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: CKM_SHA256,
        mgf: CKG_MGF1_SHA256,
        source: CKZ_DATA_SPECIFIED,
        pSourceData: label.at(),
        ulSourceDataLen: 5,
    };
    let mut inner = Caller::of(inner);
    let mut given = mechanism_of::<CK_RSA_PKCS_OAEP_PARAMS>(CKM_RSA_PKCS_OAEP, &mut inner);
    let oaep = read_mechanism(&mut given, CKF_DECRYPT);
    assert!(matches!(&oaep, Ok(Parameter::Oaep { label, .. }) if label == b"label"));
    let mut outer = Caller::of(CK_RSA_AES_KEY_WRAP_PARAMS {
        ulAESKeyBits: 256,
        pOAEPParams: inner.at(),
    });
    let mut given = mechanism_of::<CK_RSA_AES_KEY_WRAP_PARAMS>(CKM_RSA_AES_KEY_WRAP, &mut outer);
    let wrap = read_mechanism(&mut given, CKF_UNWRAP);
    assert!(matches!(wrap, Ok(Parameter::RsaAes { bits: 256, .. })));
    let mut point = Caller::new(&[4; 65]);
    let mut derive = Caller::of(CK_ECDH1_DERIVE_PARAMS {
        kdf: CKD_NULL,
        ulSharedDataLen: 0,
        pSharedData: ptr::null_mut(),
        ulPublicDataLen: 65,
        pPublicData: point.at(),
    });
    let mut given = mechanism_of::<CK_ECDH1_DERIVE_PARAMS>(CKM_ECDH1_DERIVE, &mut derive);
    let read = read_mechanism(&mut given, CKF_DERIVE);
    assert!(matches!(&read, Ok(Parameter::Ecdh { public, .. }) if public.len() == 65));
    let mut gcm = Caller::of(CK_GCM_PARAMS {
        pIv: label.at(),
        ulIvLen: 5,
        ulIvBits: 0,
        pAAD: ptr::null_mut(),
        ulAADLen: 0,
        ulTagBits: 128,
    });
    let mut given = mechanism_of::<CK_GCM_PARAMS>(CKM_AES_GCM, &mut gcm);
    let read = read_mechanism(&mut given, CKF_ENCRYPT);
    assert!(matches!(&read, Ok(Parameter::Gcm { iv, .. }) if iv == b"label"));
}

#[test]
fn parameters_that_cannot_be_are_refused() {
    let mut small = Caller::new(&[0; 3]);
    for kind in [CKM_RSA_PKCS_OAEP, CKM_AES_GCM, CKM_AES_CBC] {
        let mut given = Caller::of(CK_MECHANISM {
            mechanism: kind,
            pParameter: small.at(),
            ulParameterLen: 3,
        });
        let read = read_mechanism(&mut given, CKF_ENCRYPT);
        assert_eq!(read.err(), Some(Error::MechanismParamInvalid), "{kind:#x}");
    }
    let mut parameter = Caller::of(CK_RSA_AES_KEY_WRAP_PARAMS {
        ulAESKeyBits: 256,
        pOAEPParams: ptr::null_mut(),
    });
    let mut given =
        mechanism_of::<CK_RSA_AES_KEY_WRAP_PARAMS>(CKM_RSA_AES_KEY_WRAP, &mut parameter);
    let read = read_mechanism(&mut given, CKF_UNWRAP);
    assert_eq!(read.err(), Some(Error::MechanismParamInvalid));
    // SAFETY: the pointer is NULL, so nothing is read.
    let null = unsafe { mechanism(ptr::null(), CKF_SIGN) };
    assert!(matches!(null, Ok(None)));
}

/// Text of a fixed width has no NUL at its end, and blanks fill the field (CK_INFO, CK_TOKEN_INFO).
#[test]
fn text_fills_a_field_with_blanks() {
    assert_eq!(padded::<8>("swtpm"), *b"swtpm   ");
    assert_eq!(padded::<5>("swtpm"), *b"swtpm");
    assert_eq!(padded::<3>("swtpm"), *b"swt");
    assert_eq!(padded::<2>(""), *b"  ");
}
