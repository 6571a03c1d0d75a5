//! Private keys outside of a TPM, in the forms in which files hold them: PrivateKeyInfo (RFC 5958,
//! section 2), ECPrivateKey (RFC 5915) and RSAPrivateKey (RFC 8017, appendix A.1.2).

use super::{Curve, F4, PublicKey, RSA_ENCRYPTION, pad_left};
use crate::pem;
use p256::elliptic_curve::bigint::ConcatenatingMul;
use pkcs1::RsaPrivateKeyRef;
use pkcs1::der::asn1::{OctetStringRef, UintRef};
use pkcs1::der::{Decode, Encode};
use pkcs8::PrivateKeyInfoRef;
use rsa::BoxedUint;
use std::fmt;
use zeroize::Zeroizing;

/// The smallest RSA key that is used in memory, in bits.
const SMALLEST_RSA: u32 = 2048;

/// A private key that is not the TPM's, with its public half; wiped when it goes. That an RSA key's
/// numbers belong together shows when it is used only.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKeyInfo {
    der: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

impl PrivateKeyInfo {
    /// From a PrivateKeyInfo, DER, which is kept as it is.
    ///
    /// # Errors
    ///
    /// What it is instead.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let none = |why: &dyn fmt::Display| format!("no private key: {why}");
        let info = PrivateKeyInfoRef::try_from(der).map_err(|why| none(&why))?;
        let public = match info.algorithm.oid {
            super::EC_PUBLIC_KEY => {
                let (curve, scalar) = scalar(der)?;
                curve.public_of(&scalar).ok_or("no scalar of its curve")?
            }
            RSA_ENCRYPTION => rsa_public(info.private_key.as_bytes())?,
            other => return Err(none(&format!("the algorithm {other} is not known here"))),
        };
        let der = Zeroizing::new(der.to_vec());
        Ok(Self { der, public })
    }

    /// From what `openssl` and others write into files: the first private key of a PEM file, in one
    /// of the forms above, not encrypted.
    ///
    /// # Errors
    ///
    /// What it is instead.
    pub fn from_pem(file: &[u8]) -> Result<Self, String> {
        const ENCRYPTED: &str =
            "the private key is encrypted: write it anew by openssl pkey -in … -out …, mode 0600";
        // The form of before PKCS#8 (RFC 1421, section 4.6.1.1).
        let is_header =
            |line: &[u8]| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
        if file
            .split(|&byte| byte == b'\n')
            .any(|line| is_header(line.trim_ascii_end()))
        {
            return Err(ENCRYPTED.into());
        }
        let blocks = pem::parse(file)?.blocks;
        let found = blocks
            .iter()
            .find(|block| block.label.ends_with("PRIVATE KEY"));
        let block = found.ok_or("no private key in it")?;
        match block.label {
            "PRIVATE KEY" => Self::from_der(&block.der),
            "EC PRIVATE KEY" => Self::from_sec1(&block.der),
            "RSA PRIVATE KEY" => Self::from_pkcs1(&block.der),
            "ENCRYPTED PRIVATE KEY" => Err(ENCRYPTED.into()),
            other => Err(format!(
                "{other:?} is a form of private key that is not known here"
            )),
        }
    }

    /// A scalar as wide as the curve's order; `None` if it is none of the curve.
    pub fn from_scalar(curve: Curve, scalar: &[u8]) -> Option<Self> {
        use p256::elliptic_curve::pkcs8::EncodePrivateKey;
        macro_rules! through {
            ($curve:ident) => {{
                let key = $curve::SecretKey::from_slice(scalar).ok()?;
                key.to_pkcs8_der().ok()?.as_bytes().to_vec()
            }};
        }
        let der = Zeroizing::new(match curve {
            Curve::P256 => through!(p256),
            Curve::P384 => through!(p384),
            Curve::P521 => through!(p521),
        });
        let public = curve.public_of(scalar)?;
        Some(Self { der, public })
    }

    /// The RSA key with this modulus, of which this is one prime, and the exponent 65537.
    ///
    /// # Errors
    ///
    /// The numbers do not belong together, or the key is none for memory.
    pub fn from_prime(modulus: &[u8], prime: &[u8]) -> Result<Self, String> {
        let numbers = Numbers::of(modulus, prime);
        let numbers = numbers.ok_or("the prime is none of two of the modulus")?;
        Self::from_pkcs1(&numbers.to_der().ok_or("numbers that no key has")?)
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, String> {
        let public = rsa_public(der)?;
        let info = OctetStringRef::new(der)
            .and_then(|key| PrivateKeyInfoRef::new(pkcs1::ALGORITHM_ID, key).to_der());
        let der = Zeroizing::new(info.map_err(|why| why.to_string())?);
        Ok(Self { der, public })
    }

    fn from_sec1(der: &[u8]) -> Result<Self, String> {
        macro_rules! through {
            ($($curve:ident => $ours:ident),*) => {
                $(if let Ok(key) = $curve::SecretKey::from_sec1_der(der) {
                    let scalar = Zeroizing::new(key.to_bytes());
                    let found = Self::from_scalar(Curve::$ours, &scalar);
                    return found.ok_or("no scalar of its curve".into());
                })*
            };
        }
        through!(p256 => P256, p384 => P384, p521 => P521);
        Err("no private key on a curve that is known here".into())
    }

    /// PrivateKeyInfo, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The scalar of a key on a curve, as wide as the curve's order.
    pub(crate) fn scalar(&self) -> Option<Zeroizing<Vec<u8>>> {
        scalar(&self.der).ok().map(|(_, scalar)| scalar)
    }
}

impl fmt::Debug for PrivateKeyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKeyInfo({})", self.public)
    }
}

fn scalar(der: &[u8]) -> Result<(Curve, Zeroizing<Vec<u8>>), String> {
    use p256::elliptic_curve::pkcs8::DecodePrivateKey;
    macro_rules! through {
        ($($curve:ident => $ours:ident),*) => {
            $(if let Ok(key) = $curve::SecretKey::from_pkcs8_der(der) {
                let scalar = Zeroizing::new(key.to_bytes());
                return Ok((Curve::$ours, Zeroizing::new(scalar.to_vec())));
            })*
        };
    }
    through!(p256 => P256, p384 => P384, p521 => P521);
    Err("no private key on a curve that is known here".into())
}

/// The public half of an RSAPrivateKey that can be used in memory.
fn rsa_public(der: &[u8]) -> Result<PublicKey, String> {
    if !cfg!(feature = "soft-rsa") {
        return Err("RSA keys are for the TPM only in this build (feature soft-rsa)".into());
    }
    let key = RsaPrivateKeyRef::from_der(der).map_err(|why| format!("no RSA key: {why}"))?;
    if key.other_prime_infos.is_some() {
        return Err("an RSA key of more than two primes".into());
    }
    let public = PublicKey::from_rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes());
    match public {
        Some(public) if public.bits() >= SMALLEST_RSA => Ok(public),
        _ => Err("an RSA key must have 2048 to 4096 bits".into()),
    }
}

/// The numbers of an RSA key, big-endian.
struct Numbers {
    modulus: Vec<u8>,
    exponent: Zeroizing<Vec<u8>>,
    /// The larger first.
    primes: [Zeroizing<Vec<u8>>; 2],
    /// The private exponent modulo each prime less one.
    exponents: [Zeroizing<Vec<u8>>; 2],
    coefficient: Zeroizing<Vec<u8>>,
}

impl Numbers {
    /// By constant-time operations; `None` if the prime is none of two of half the modulus' width.
    fn of(modulus: &[u8], prime: &[u8]) -> Option<Self> {
        let half = modulus.len().div_ceil(2);
        let bits = half as u32 * 8;
        let number = |bytes: &[u8], bits| BoxedUint::from_be_slice(bytes, bits).ok();
        let narrow = |bytes: &[u8]| {
            let bytes = Zeroizing::new(pad_left(bytes, half)?);
            Some(Zeroizing::new(number(&bytes, bits)?))
        };
        let whole = number(modulus, 2 * bits)?;
        let divisor = Zeroizing::new(number(prime, 2 * bits)?);
        let divisor = Zeroizing::new(divisor.to_nz().into_option()?);
        let (other, rest) = whole.div_rem(&divisor);
        if !bool::from(rest.is_zero()) {
            return None;
        }
        let other = Zeroizing::new(other);
        let (one, other) = (narrow(prime)?, narrow(&bytes(&other))?);
        let [p, q] = if *one > *other {
            [one, other]
        } else {
            [other, one]
        };

        let unit = BoxedUint::one_with_precision(bits);
        let wiped = |number: &BoxedUint| number.to_nz().into_option().map(Zeroizing::new);
        let less = |prime: &BoxedUint| wiped(&Zeroizing::new(prime.wrapping_sub(&unit)));
        let (p_less, q_less) = (less(&p)?, less(&q)?);
        let f4 = |bits| number(&F4, bits);
        let of_p = Zeroizing::new(f4(bits)?.invert_mod(&p_less).into_option()?);
        let of_q = Zeroizing::new(f4(bits)?.invert_mod(&q_less).into_option()?);
        let order = wiped(&Zeroizing::new(p_less.concatenating_mul(&**q_less)))?;
        let exponent = f4(2 * bits)?.invert_mod(&order).into_option()?;
        let odd = Zeroizing::new(p.to_odd().into_option()?);
        let coefficient = q.invert_odd_mod(&odd).into_option()?;
        Some(Self {
            modulus: modulus.to_vec(),
            exponent: bytes(&Zeroizing::new(exponent)),
            primes: [bytes(&p), bytes(&q)],
            exponents: [bytes(&of_p), bytes(&of_q)],
            coefficient: bytes(&Zeroizing::new(coefficient)),
        })
    }

    /// RSAPrivateKey, DER.
    fn to_der(&self) -> Option<Zeroizing<Vec<u8>>> {
        let number = |bytes| UintRef::new(bytes).ok();
        let [p, q] = &self.primes;
        let [of_p, of_q] = &self.exponents;
        let key = RsaPrivateKeyRef {
            modulus: number(&self.modulus)?,
            public_exponent: number(&F4)?,
            private_exponent: number(&self.exponent)?,
            prime1: number(p)?,
            prime2: number(q)?,
            exponent1: number(of_p)?,
            exponent2: number(of_q)?,
            coefficient: number(&self.coefficient)?,
            other_prime_infos: None,
        };
        key.to_der().ok().map(Zeroizing::new)
    }
}

fn bytes(number: &BoxedUint) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(number.to_be_bytes().into_vec())
}
