//! TPM2_GetCapability (Part 3, section 30.2), which lists the objects and abilities of a TPM.

use super::Link;
use super::response_reader::ResponseReader;
use crate::tpm::{Lockout, Property, TpmError, handle};
use std::collections::BTreeSet;
use tpm2_protocol::basic::TpmUint32;
use tpm2_protocol::data::TpmCap;
use tpm2_protocol::frame::TpmGetCapabilityCommand;

/// The number of items in one request. A TPM answers with as many items as fit into a response.
const AT_ONCE: u32 = 254;
/// The maximum length of a list. Reading stops at this length, even if the TPM reports more items.
const MOST: usize = 10_000;

/// One TPM2_GetCapability response, with a part of a list.
struct Page<T> {
    items: Vec<T>,
    /// The field moreData: true if the TPM has more items of the list.
    more: bool,
}

impl Link {
    /// Requests at most `count` items of the list of `capability`, from `first` on. `item` parses
    /// one item.
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
                "the TPM answered with capability {told} instead of {}",
                capability.value()
            )));
        }
        let mut items = Vec::new();
        for _ in 0..reading.uint32()? {
            items.push(item(&mut reading)?);
        }
        Ok(Page { items, more })
    }

    /// Requests all numbers of a list from `first` on. Returns them without duplicates, in
    /// ascending order. Sends one command for each full response. `key` reads the number of an
    /// item.
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
            // A TPM that reports "more" but returns no new item would cause an endless loop.
            let has_grown = found.len() > known && found.len() < MOST;
            match found.last().and_then(|last| last.checked_add(1)) {
                Some(behind) if more && has_grown => next = behind,
                _ => return Ok(found),
            }
        }
    }

    /// Returns the handles from `first` to the end of their range, in ascending order
    /// (TPM_CAP_HANDLES).
    pub(crate) fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        /// The bits of a handle that name its range (Part 2, section 7.2: TPM_HT).
        const RANGE: u32 = 0xFF00_0000;
        let found = self.numbers(TpmCap::Handles, first, |reading| reading.uint32())?;
        let in_range = |handle: &u32| handle & RANGE == first & RANGE;
        Ok(found.into_iter().filter(in_range).collect())
    }

    /// Returns the loaded HMAC sessions and policy sessions (TPM_CAP_HANDLES).
    pub(crate) fn sessions(&mut self) -> Result<Vec<u32>, TpmError> {
        let first = handle::LOADED_SESSION;
        let found = self.numbers(TpmCap::Handles, first, |reading| reading.uint32())?;
        let kinds = [first, handle::POLICY_SESSION].map(|one| one >> 24);
        Ok(found
            .into_iter()
            .filter(|one| kinds.contains(&(one >> 24)))
            .collect())
    }

    /// Returns the identifiers of all algorithms (TPM_CAP_ALGS).
    pub(crate) fn algorithms(&mut self) -> Result<Vec<u16>, TpmError> {
        let found = self.numbers(TpmCap::Algs, 0, |reading| {
            let identifier = reading.uint16()?;
            reading.uint32()?; // TPMA_ALGORITHM
            Ok(identifier.into())
        })?;
        Ok(found.into_iter().map(|one| one as u16).collect())
    }

    /// Returns all properties about lockout (TPM_CAP_TPM_PROPERTIES). Sends one command, and one
    /// more for each property that is missing in the response.
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
                "the TPM does not report how many failed tries it counts, or how many cause lockout"
                    .into(),
            ));
        };
        Ok(Lockout {
            counter,
            most,
            interval: interval.unwrap_or_default(),
        })
    }

    /// Returns one property; `None` if the TPM does not report it (TPM_CAP_TPM_PROPERTIES).
    pub(crate) fn property(&mut self, property: Property) -> Result<Option<u32>, TpmError> {
        // A TPM without this property returns the next property.
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

/// Reads a TPMS_TAGGED_PROPERTY.
fn pair(reading: &mut ResponseReader) -> Result<(u32, u32), TpmError> {
    Ok((reading.uint32()?, reading.uint32()?))
}
