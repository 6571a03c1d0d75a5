//! A simulated TPM. Each answer has the form that belongs to the command. The fuzzer chooses the
//! content.

use crate::bytes::Bytes;
use crate::lies::CODES;
use crate::memory::{code_of, number, response, sized};
use sha2::{Digest, Sha256};

/// The maximum number of answered commands. An operation of one call sends fewer commands.
const MOST_COMMANDS: usize = 400;

/// The choices for the next answers.
pub struct Script {
    choices: Bytes,
    commands: usize,
    certificates: &'static [&'static [u8]],
}

impl Script {
    pub fn new(choices: Bytes, certificates: &'static [&'static [u8]]) -> Self {
        Self {
            choices,
            commands: 0,
            certificates,
        }
    }

    pub fn answer(&mut self, command: &[u8]) -> Option<Vec<u8>> {
        self.commands += 1;
        if self.choices.is_empty() || self.commands > MOST_COMMANDS {
            return None;
        }
        match self.choices.below(24) {
            0 => return None,
            1 | 2 => return Some(response(0x8001, self.choices.pick(&CODES), &[])),
            3 => return Some(response(0x8001, self.choices.long(), &[])),
            4 => {
                let body = self.choices.some();
                return Some(response(0x8001, 0, &body));
            }
            5 => {
                let body = self.choices.some();
                return Some(response(0x8002, 0, &body));
            }
            6 => return Some(self.choices.some()),
            _ => {}
        }
        let (handle, mut parameters) = self.shaped(command);
        if self.choices.rarely(16) {
            parameters.truncate(self.choices.below(256));
        }
        if self.choices.rarely(16) {
            parameters.extend(self.choices.some());
        }
        if self.choices.rarely(16) && !parameters.is_empty() {
            let at = usize::from(self.choices.word()) % parameters.len();
            parameters[at] = self.choices.byte();
        }
        let mut body = handle.map_or(Vec::new(), |handle| handle.to_be_bytes().to_vec());
        if command.get(1) != Some(&2) {
            body.extend(parameters);
            return Some(response(0x8001, 0, &body));
        }
        body.extend((parameters.len() as u32).to_be_bytes());
        body.extend(parameters);
        match self.choices.below(8) {
            0 => body.extend(self.choices.some()),
            _ => body.extend([0, 0, 1, 0, 0]),
        }
        Some(response(0x8002, 0, &body))
    }

    fn shaped(&mut self, command: &[u8]) -> (Option<u32>, Vec<u8>) {
        let transient = 0x8000_0000 | u32::from(self.choices.byte() & 3);
        match code_of(command) {
            0x17A => (None, self.capability(command)),
            0x173 => {
                let area = self.area();
                let name = self.name(&area);
                (None, [sized(&area), sized(&name), sized(&name)].concat())
            }
            0x169 => {
                let index = number(command, 10);
                let size = match self.choices.below(4) {
                    0 => self.choices.word(),
                    which => self.certificates[which % self.certificates.len()].len() as u16,
                };
                let attributes = match self.choices.below(4) {
                    0 => self.choices.long(),
                    _ => 0x2204_0042,
                };
                let mut public = index.to_be_bytes().to_vec();
                public.extend([0, 0x0B]);
                public.extend(attributes.to_be_bytes());
                public.extend([0, 0]);
                public.extend(size.to_be_bytes());
                let name = self.name(&public);
                (None, [sized(&public), sized(&name)].concat())
            }
            0x14E => {
                let (size, offset) = asked_piece(command);
                let content = match self.choices.below(4) {
                    0 => self.choices.some(),
                    which => {
                        let whole = self.certificates[which % self.certificates.len()];
                        whole.iter().skip(offset).take(size).copied().collect()
                    }
                };
                (None, sized(&content))
            }
            0x131 => {
                let area = self.area();
                let name = self.name(&area);
                let creation = [
                    &[0_u8, 0, 0, 0, 0, 32][..],
                    &[0; 32],
                    &[0],
                    &[0, 0x10],
                    &[0; 6],
                ];
                let ticket = [0x80, 0x21, 0x40, 0, 0, 7, 0, 0];
                let parts = [sized(&area), sized(&creation.concat()), sized(&[0; 32])].concat();
                (
                    Some(transient),
                    [parts, ticket.to_vec(), sized(&name)].concat(),
                )
            }
            0x157 => {
                let name = self.choices.some();
                (Some(transient), sized(&name))
            }
            0x161 => (Some(transient), Vec::new()),
            0x162 => {
                let mut context = vec![0, 0, 0, 0, 0, 0, 0, 1];
                context.extend(transient.to_be_bytes());
                context.extend([0x40, 0, 0, 7]);
                let blob = self.choices.some();
                context.extend(sized(&blob));
                (None, context)
            }
            0x15D => (None, self.signature(command)),
            0x153 | 0x191 => {
                let private = self.choices.some();
                let area = self.area();
                let ticket = [0x80, 0x21, 0x40, 0, 0, 7, 0, 0];
                let made = [sized(&private), sized(&area), sized(&[]), sized(&[0; 32])].concat();
                (None, [made, ticket.to_vec()].concat())
            }
            0x176 => {
                let nonce = match self.choices.below(4) {
                    0 => self.choices.some(),
                    _ => vec![7; 32],
                };
                (
                    Some(0x0200_0000 | u32::from(self.choices.byte() & 3)),
                    sized(&nonce),
                )
            }
            0x17B | 0x159 | 0x15E | 0x154 | 0x156 => {
                let content = self.choices.some();
                (None, sized(&content))
            }
            0x165 | 0x120 | 0x12A | 0x137 | 0x138 | 0x122 | 0x18A => (None, Vec::new()),
            _ => (None, self.choices.some()),
        }
    }

    fn capability(&mut self, command: &[u8]) -> Vec<u8> {
        let (kind, first) = (number(command, 10), number(command, 14));
        let mut told = vec![u8::from(self.choices.rarely(8))];
        let capability = match self.choices.below(16) {
            0 => self.choices.long(),
            _ => kind,
        };
        told.extend(capability.to_be_bytes());
        let count = u32::from(self.choices.byte() % 12);
        let said = match self.choices.below(16) {
            0 => self.choices.long(),
            _ => count,
        };
        told.extend(said.to_be_bytes());
        for n in 0..count {
            let near = match self.choices.below(4) {
                0 => self.choices.long(),
                _ => first.wrapping_add(n),
            };
            match kind {
                0 => {
                    told.extend((self.choices.word() % 0x50).to_be_bytes());
                    told.extend(self.choices.long().to_be_bytes());
                }
                6 => {
                    told.extend(near.to_be_bytes());
                    told.extend(self.choices.long().to_be_bytes());
                }
                8 => told.extend((self.choices.word() % 8).to_be_bytes()),
                _ => told.extend(near.to_be_bytes()),
            }
        }
        told
    }

    /// Returns a TPMT_PUBLIC, which is usually valid.
    fn area(&mut self) -> Vec<u8> {
        let attributes: u32 = match self.choices.below(8) {
            0 => self.choices.long(),
            which => [
                0x0004_00F2,
                0x0003_0072,
                0x0002_0072,
                0x0004_0072,
                0x0003_04F2,
            ][which % 5],
        };
        let policy = match self.choices.below(8) {
            0 => self.choices.some(),
            1 => vec![3; 32],
            _ => Vec::new(),
        };
        let symmetric: &[u8] = match attributes & 0x0001_0000 {
            0 => &[0, 0x10],
            _ => &[0, 6, 0, 128, 0, 0x43],
        };
        let scheme: &[u8] = match self.choices.below(5) {
            0 => &[0, 0x18, 0, 0x0B],
            1 => &[0, 0x14, 0, 0x0B],
            2 => &[0, 0x16, 0, 0x0B],
            3 => &[0, 0x18, 0, 0x0C],
            _ => &[0, 0x10],
        };
        let mut area = Vec::new();
        let rsa = self.choices.rarely(3);
        area.extend(if rsa { [0, 1] } else { [0, 0x23] });
        area.extend([0, 0x0B]);
        area.extend(attributes.to_be_bytes());
        area.extend(sized(&policy));
        area.extend(symmetric);
        area.extend(scheme);
        if rsa {
            let modulus = match self.choices.below(4) {
                0 => self.choices.some(),
                1 => vec![0xC5; 384],
                _ => vec![0xC5; 256],
            };
            area.extend((8 * modulus.len() as u16).to_be_bytes());
            area.extend(
                self.choices
                    .pick(&[0_u32, 65537, 3, 1, 0xFFFF_FFFF])
                    .to_be_bytes(),
            );
            area.extend(sized(&modulus));
        } else {
            area.extend(
                self.choices
                    .pick(&[[0, 3], [0, 3], [0, 4], [0, 5], [0, 0x20]]),
            );
            area.extend([0, 0x10]);
            let point = match self.choices.below(8) {
                0 => [self.choices.some(), self.choices.some()],
                _ => [GENERATOR.0.to_vec(), GENERATOR.1.to_vec()],
            };
            area.extend(point.iter().flat_map(|one| sized(one)));
        }
        area
    }

    /// Returns a name for a public area, usually the right name.
    fn name(&mut self, area: &[u8]) -> Vec<u8> {
        match self.choices.below(8) {
            0 => self.choices.some(),
            _ => [&[0, 0x0B][..], &Sha256::digest(area)].concat(),
        }
    }

    fn signature(&mut self, command: &[u8]) -> Vec<u8> {
        // The requested scheme comes after the digest.
        let digest = 10 + 4 + 4 + number(command, 14) as usize;
        let length = command
            .get(digest..digest + 2)
            .map_or(0, |two| usize::from(two[1]));
        let asked = command.get(digest + 2 + length..digest + 6 + length);
        let mut signature = match (asked, self.choices.below(8)) {
            (Some(asked), 1..) => asked.to_vec(),
            _ => self.choices.long().to_be_bytes().to_vec(),
        };
        for _ in 0..1 + self.choices.below(2) {
            let number = match self.choices.below(4) {
                0 => self.choices.some(),
                _ => vec![0x5A; 32],
            };
            signature.extend(sized(&number));
        }
        signature
    }
}

/// Returns the requested size and offset of a TPM2_NV_Read.
fn asked_piece(command: &[u8]) -> (usize, usize) {
    let end = command.len().saturating_sub(4);
    let both = number(command, end);
    ((both >> 16) as usize, (both & 0xFFFF) as usize)
}

/// The generator of P-256.
pub const GENERATOR: (&[u8; 32], &[u8; 32]) = (
    b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\
      \x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96",
    b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\
      \x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5",
);
