//! TPM2_GetCapability (Part 3, section 30.2): the contents and abilities of a TPM.

use super::Link;
use super::response_reader::ResponseReader;
use crate::tpm::{Lockout, Property, TpmError, handle};
use std::collections::BTreeSet;
use tpm2_protocol::basic::TpmUint32;
use tpm2_protocol::data::TpmCap;
use tpm2_protocol::frame::TpmGetCapabilityCommand;

/// The number of items in one request; a TPM answers with as many as fit.
const AT_ONCE: u32 = 254;
/// Upper limit for the length of a list. A TPM that reports more items is not believed.
const MOST: usize = 10_000;

/// One answer with a part of a list.
struct Page<T> {
    items: Vec<T>,
    /// True if the TPM has more items.
    more: bool,
}

impl Link {
    /// The list of `capability` from `first` on, at most `count` items; `item` reads one.
    fn page<T>(
        &mut self,
        capability: TpmCap,
        first: u32,
        count: u32,
        item: impl Fn(&mut ResponseReader) -> Result<T, TpmError>,
    ) -> Result<Page<T>, TpmError> {
        let command = TpmGetCapabilityCommand {
            handles: [],
            cap: capability,
            property: TpmUint32::new(first),
            property_count: TpmUint32::new(count),
        };
        let answer = self.execute(&command, None, None, 0)?;
        let mut reading = ResponseReader::new(&answer.parameters);
        let more = reading.uint8()? != 0;
        let told = reading.uint32()?;
        if told != capability.value() {
            return Err(TpmError::WrongAnswer(format!(
                "capability {} was asked for, and {told} came",
                capability.value()
            )));
        }
        let mut items = Vec::new();
        for _ in 0..reading.uint32()? {
            items.push(item(&mut reading)?);
        }
        Ok(Page { items, more })
    }

    /// All numbers from `first` on, without duplicates, ascending. One command for each full
    /// answer. `key` reads the number of an item.
    fn numbers(
        &mut self,
        capability: TpmCap,
        first: u32,
        key: impl Fn(&mut ResponseReader) -> Result<u32, TpmError>,
    ) -> Result<BTreeSet<u32>, TpmError> {
        let mut found = BTreeSet::new();
        let mut next = first;
        loop {
            let Page { items, more } = self.page(capability, next, AT_ONCE, &key)?;
            let known = found.len();
            found.extend(items.into_iter().filter(|number| *number >= first));
            // A TPM that says "more" but returns nothing new would cause an endless loop.
            let has_grown = found.len() > known && found.len() < MOST;
            match found.last().and_then(|last| last.checked_add(1)) {
                Some(behind) if more && has_grown => next = behind,
                _ => return Ok(found),
            }
        }
    }

    /// TPM_CAP_HANDLES: the handles from `first` to the end of its range, ascending.
    pub(crate) fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        /// The bits of a handle that name its range (Part 2, section 7.2: TPM_HT).
        const RANGE: u32 = 0xFF00_0000;
        let found = self.numbers(TpmCap::Handles, first, |reading| reading.uint32())?;
        let in_range = |handle: &u32| handle & RANGE == first & RANGE;
        Ok(found.into_iter().filter(in_range).collect())
    }

    /// TPM_CAP_HANDLES: the loaded auth sessions, of HMACs and of policies.
    pub(crate) fn sessions(&mut self) -> Result<Vec<u32>, TpmError> {
        let first = handle::LOADED_SESSION;
        let found = self.numbers(TpmCap::Handles, first, |reading| reading.uint32())?;
        let kinds = [first, handle::POLICY_SESSION].map(|one| one >> 24);
        Ok(found
            .into_iter()
            .filter(|one| kinds.contains(&(one >> 24)))
            .collect())
    }

    /// TPM_CAP_ALGS: the identifiers of all algorithms.
    pub(crate) fn algorithms(&mut self) -> Result<Vec<u16>, TpmError> {
        let found = self.numbers(TpmCap::Algs, 0, |reading| {
            let identifier = reading.uint16()?;
            reading.uint32()?; // TPMA_ALGORITHM
            Ok(identifier.into())
        })?;
        Ok(found.into_iter().map(|one| one as u16).collect())
    }

    /// TPM_CAP_TPM_PROPERTIES: all properties about lockout. One command, and one more for each
    /// property that is missing in the answer.
    pub(crate) fn lockout(&mut self) -> Result<Lockout, TpmError> {
        let (first, count) = (Property::LOCKOUT[0].tag(), Property::LOCKOUT.len() as u32);
        let told = self.page(TpmCap::TpmProperties, first, count, pair)?.items;
        let mut values = [None; Property::LOCKOUT.len()];
        for (value, property) in values.iter_mut().zip(Property::LOCKOUT) {
            let found = told.iter().find(|(tag, _)| *tag == property.tag());
            *value = match found {
                Some((_, value)) => Some(*value),
                None => self.property(property)?,
            };
        }
        let [Some(counter), Some(most), interval] = values else {
            return Err(TpmError::Unsupported(
                "the TPM does not tell how many failed tries count, nor how many are lockout"
                    .into(),
            ));
        };
        Ok(Lockout {
            counter,
            most,
            interval: interval.unwrap_or_default(),
        })
    }

    /// TPM_CAP_TPM_PROPERTIES: one property; `None` if the TPM does not report it.
    pub(crate) fn property(&mut self, property: Property) -> Result<Option<u32>, TpmError> {
        // A TPM without this property answers with the next one.
        match self.page(TpmCap::TpmProperties, property.tag(), 1, pair) {
            Ok(page) => Ok(page
                .items
                .into_iter()
                .find_map(|(tag, value)| (tag == property.tag()).then_some(value))),
            Err(TpmError::Response(code)) if code.is_definite() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// TPMS_TAGGED_PROPERTY.
fn pair(reading: &mut ResponseReader) -> Result<(u32, u32), TpmError> {
    Ok((reading.uint32()?, reading.uint32()?))
}
