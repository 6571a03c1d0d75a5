//! Prepares a run of `devid provision`, and replaces the certificate of the identity `devid`.

use super::IdentityError;
use super::awaited::waiting;
use super::device::Device;
use super::observe::Observed;
use super::provision::{Provisioned, Provisioning, Work};
use super::state::{Certified, Plan, Policy};
use crate::config::LeaveSoftware;
use crate::x509::Certificate;

impl Device {
    /// Returns the options of the run with the subject resolved for this device. Changes nothing,
    /// so an error leaves the device as it is.
    ///
    /// # Errors
    ///
    /// Fails if a variable of the subject has no value, or if no new certificate can be made.
    pub(super) fn work<'a>(
        &self,
        seen: &Observed,
        policy: Policy,
        how: &'a Provisioning,
    ) -> Result<Work<'a>, IdentityError> {
        let plan = seen.facts.plan(policy);
        let moves = how.new_certificate && self.moves(seen, policy, plan)?;
        if moves && how.request.is_none() {
            self.is_self_made(seen.software.certificate()?.as_ref())?;
        }
        let awaited = self.awaited()?;
        let waits = awaited.is_some() && plan != Plan::Reset;
        let makes = how.new_certificate
            || how.request.is_some()
            || !waits
                && matches!(
                    plan,
                    Plan::Generate
                        | Plan::MakeSoftware
                        | Plan::Certify
                        | Plan::CertifySoftware
                        | Plan::Reset
                );
        let awaited = awaited.filter(|subject| !subject.is_empty());
        let asks_again = how.request.is_some() && !how.new_certificate;
        let template = how
            .subject
            .as_ref()
            .or(self.config.provision.subject.as_ref());
        let subject = match (&how.subject, awaited) {
            (None, Some(subject)) if asks_again && plan != Plan::Reset => {
                let parsed = crate::x509::Subject::parse(&subject)?;
                Some((subject, parsed))
            }
            _ if !makes => None,
            _ => template.map(|one| self.subject_by(one)).transpose()?,
        };
        let work = Work {
            request: how.request.as_ref(),
            subject,
            new_certificate: how.new_certificate,
            moves,
        };
        let will_wait = matches!(
            plan,
            Plan::Generate | Plan::MakeSoftware | Plan::Certify | Plan::CertifySoftware
        );
        // The pending request is recorded (file `awaited-certificate`) before the key is made.
        // Otherwise a run that is killed could leave a key that a later run certifies itself.
        if work.request.is_some() && (will_wait || moves) {
            let subject = work.subject.as_ref().map(|(text, _)| text.as_str());
            self.await_certificate(subject)?;
        }
        Ok(work)
    }

    /// Returns true if a new certificate makes the device move from its software key to a TPM key.
    fn moves(&self, seen: &Observed, policy: Policy, plan: Plan) -> Result<bool, IdentityError> {
        if plan != Plan::KeepSoftware || policy.leave_software == LeaveSoftware::Never {
            return Ok(false);
        }
        if let (false, true, Some(fault)) =
            (seen.facts.tpm, seen.facts.tpm_is_there, &seen.tpm_fault)
        {
            return Err(fault.clone().while_doing(
                "cannot move the device to its TPM with a new certificate, because the TPM does \
                 not answer",
            ));
        }
        Ok(seen.facts.tpm)
    }

    /// Returns true if a CA has not answered a certificate request yet, and the caller requested no
    /// other certificate.
    pub(super) fn waits(&self, how: &Work, done: &mut Provisioned) -> Result<bool, IdentityError> {
        if how.new_certificate && how.request.is_none() {
            return Ok(false);
        }
        let Some(subject) = self.awaited()? else {
            return Ok(false);
        };
        done.waits = true;
        if how.request.is_none() {
            done.notes.push(waiting(&subject));
        }
        Ok(true)
    }

    /// Makes a new certificate for the current key of the identity. The new certificate replaces a
    /// certificate that the device made.
    ///
    /// # Errors
    ///
    /// Fails if a CA issued the current certificate, or if devid did not make the identity. After
    /// an error nothing was changed.
    pub(super) fn certify_anew(
        &self,
        seen: &Observed,
        policy: Policy,
        how: &Work,
        done: &mut Provisioned,
    ) -> Result<(), IdentityError> {
        let refused = |why: &str| {
            Err(IdentityError::refused(format!(
                "{why}; nothing was changed"
            )))
        };
        let plan = seen.facts.plan(policy);
        let label = super::OWN;
        match plan {
            Plan::UseExisting => {
                return refused(
                    "another party made the identity of existing under [provision], so devid does \
                     not certify it",
                );
            }
            Plan::UseFactory => {
                return refused(
                    "the device has only the factory identity, which the maker of the device \
                     certifies",
                );
            }
            Plan::Keep | Plan::KeepSoftware => {}
            // A later step of the run makes the certificate, or fails.
            _ => return self.stop_awaiting(),
        }
        let in_software = seen.facts.certificate == Certified::SoftwareKey;
        let inventory = self.inventory();
        let owner = inventory.entries.into_iter().find(|one| match in_software {
            true => one.software.is_some() && one.label == label,
            false => one.protected && one.label == label,
        });
        let Some(owner) = owner else {
            return refused("the device's key devid was not found");
        };
        self.is_self_made(owner.certificate())?;
        let signer = self.signer(seen)?;
        let subject = match &how.subject {
            Some((_, subject)) => subject.clone(),
            None => self.own_subject(signer.public())?,
        };
        let certificate = signer.self_signed(subject)?;
        let named = certificate.subject();
        match in_software {
            true => seen.software.keep(&certificate, &[])?,
            false => {
                let taken = self.take(&self.own, &owner, certificate, &[])?;
                done.notes.extend(taken.note);
            }
        }
        self.stop_awaiting()?;
        self.tell_others();
        done.steps.push(format!("made a new certificate: {named}"));
        Ok(())
    }

    /// Checks that the device itself signed the certificate. A replacement would lose a certificate
    /// that a CA issued.
    pub(super) fn is_self_made(
        &self,
        certificate: Option<&Certificate>,
    ) -> Result<(), IdentityError> {
        match certificate.filter(|one| !one.is_self_signed()) {
            None => Ok(()),
            Some(issued) => Err(IdentityError::refused(format!(
                "the CA {} certified the device's key, and a self-signed certificate would replace \
                 this certificate; nothing was changed. To get a new certificate from a CA, make a \
                 request with devid csr devid and import the answer with devid import-cert. devid \
                 provision --new-certificate --csr FILE keeps the old certificate until the new \
                 one is imported",
                issued.issuer()
            ))),
        }
    }
}
