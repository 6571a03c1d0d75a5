//! Answers to TPM2_Sign with the unusual values of hardware, or with a fault.

use super::proxy::number_at;

/// Returns an answer to TPM2_Sign (ECDSA, one authorisation) without leading zeros in r and s.
pub(super) fn shortened(answer: &[u8]) -> Vec<u8> {
    if number_at(answer, 6) != 0 {
        return answer.to_vec();
    }
    let mut parameters = answer[14..18].to_vec(); // scheme and hash
    let mut at = 18;
    for _ in 0..2 {
        let size = usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
        let number = &answer[at + 2..at + 2 + size];
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        parameters.extend(u16::try_from(size - zeros).expect("fits").to_be_bytes());
        parameters.extend(&number[zeros..]);
        at += 2 + size;
    }
    let size = 14 + parameters.len() + answer.len() - at;
    let mut short = answer[..2].to_vec();
    short.extend(u32::try_from(size).expect("fits").to_be_bytes());
    short.extend(&answer[6..10]);
    short.extend(u32::try_from(parameters.len()).expect("fits").to_be_bytes());
    short.extend(parameters);
    short.extend(&answer[at..]);
    short
}

/// Returns an answer to TPM2_Sign (RSA) with one flipped bit of the signature.
pub(super) fn flipped(mut answer: Vec<u8>) -> Vec<u8> {
    if number_at(&answer, 6) == 0 {
        answer[100] ^= 1;
    }
    answer
}
