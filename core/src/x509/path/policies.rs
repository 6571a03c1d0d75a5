//! Certificate policies along a path (RFC 5280, section 6.1). Any policy is acceptable. No policy
//! is required unless a CA requires one. The policies of the trusted certificate apply too (RFC
//! 5937).

use super::is_self_issued;
use crate::oid::ANY_POLICY;
use crate::x509::extensions::PolicyConstraints;
use crate::x509::{Certificate, Unreadable};
use std::collections::BTreeSet;
use x509_cert::der::asn1::ObjectIdentifier;

/// What a certificate states about policies: its extensions certificatePolicies, policyMappings,
/// policyConstraints and inhibitAnyPolicy.
struct PolicyStatement {
    whose: String,
    self_issued: bool,
    policies: Option<BTreeSet<ObjectIdentifier>>,
    mappings: Vec<(ObjectIdentifier, ObjectIdentifier)>,
    constraints: PolicyConstraints,
    inhibit_any: Option<usize>,
}

/// The state of the validation, which goes from the trusted certificate to the leaf. The sets are
/// the leaves of the valid_policy_tree of RFC 5280, section 6.1. Since any policy is acceptable,
/// only the policies that remain matter, not how they became valid.
struct Walk {
    explicit_policy: usize,
    policy_mapping: usize,
    inhibit_any: usize,
    /// The policies that are valid at the current certificate, without anyPolicy.
    valid: BTreeSet<ObjectIdentifier>,
    /// The policies that the next certificate may name (expected_policy_set of RFC 5280, section
    /// 6.1).
    expected: BTreeSet<ObjectIdentifier>,
    /// True if anyPolicy is valid, so that the next certificate may name any policy.
    any: bool,
}

/// Checks the policies of a path. The leaf is first, the trusted certificate last.
///
/// # Errors
///
/// Fails if a certificate requires a valid policy and no policy is valid. Also fails if a
/// certificate maps anyPolicy, or if an extension cannot be read.
pub(super) fn check(path: &[&Certificate]) -> Result<(), String> {
    let mut said = Vec::new();
    for certificate in path.iter().rev() {
        said.push(PolicyStatement::read(certificate)?);
    }
    let Some((anchor, below)) = said.split_first() else {
        return Ok(());
    };
    let number = below.len();
    let mut walk = Walk {
        explicit_policy: number + 1,
        policy_mapping: number + 1,
        inhibit_any: number + 1,
        valid: BTreeSet::new(),
        expected: BTreeSet::new(),
        any: true,
    };
    if number == 0 {
        return Ok(());
    }
    if anchor.policies.is_some() {
        walk.take(anchor, true);
    }
    walk.map(anchor);
    walk.constrain(anchor);
    for (at, one) in below.iter().enumerate() {
        let last = at + 1 == number;
        walk.take(one, !last && one.self_issued);
        walk.is_explicit_enough(&one.whose)?;
        walk.map(one);
        if last {
            walk.explicit_policy = walk.explicit_policy.saturating_sub(1);
            if one.constraints.require_explicit_policy == Some(0) {
                walk.explicit_policy = 0;
            }
            walk.is_explicit_enough(&one.whose)?;
        } else {
            if !one.self_issued {
                walk.explicit_policy = walk.explicit_policy.saturating_sub(1);
                walk.policy_mapping = walk.policy_mapping.saturating_sub(1);
                walk.inhibit_any = walk.inhibit_any.saturating_sub(1);
            }
            walk.constrain(one);
        }
    }
    Ok(())
}

impl PolicyStatement {
    fn read(certificate: &Certificate) -> Result<Self, String> {
        let whose = certificate.subject();
        let unread = |what: &'static str| {
            let whose = whose.clone();
            move |why: Unreadable| format!("the {what} of {whose} {why}")
        };
        let policies = certificate
            .policies()
            .map_err(unread("certificatePolicies"))?;
        let mappings = certificate.policy_mappings();
        let mappings = mappings
            .map_err(unread("policyMappings"))?
            .unwrap_or_default();
        let constraints = certificate.policy_constraints();
        let constraints = constraints.map_err(unread("policyConstraints"))?;
        let inhibit_any = certificate.inhibit_any_policy();
        let inhibit_any = inhibit_any.map_err(unread("inhibitAnyPolicy"))?;
        if mappings
            .iter()
            .any(|(from, to)| [from, to].contains(&&ANY_POLICY))
        {
            return Err(format!(
                "the certificate of {whose} maps anyPolicy to another policy, or another policy \
                 to anyPolicy (RFC 5280, 6.1.4)"
            ));
        }
        Ok(Self {
            self_issued: is_self_issued(certificate),
            policies: policies.map(BTreeSet::from_iter),
            mappings,
            constraints: constraints.unwrap_or(PolicyConstraints {
                require_explicit_policy: None,
                inhibit_policy_mapping: None,
            }),
            inhibit_any,
            whose,
        })
    }
}

impl Walk {
    /// Applies the certificatePolicies of a certificate (RFC 5280, section 6.1.3, steps d and e).
    fn take(&mut self, said: &PolicyStatement, always_any: bool) {
        let mut valid = said.policies.clone().unwrap_or_default();
        let names_any = valid.remove(&ANY_POLICY) && (always_any || self.inhibit_any > 0);
        valid.retain(|one| self.any || self.expected.contains(one));
        if names_any {
            valid.extend(&self.expected);
        }
        self.any &= names_any;
        self.expected.clone_from(&valid);
        self.valid = valid;
    }

    /// Checks that a policy is valid if a valid policy is required (RFC 5280, section 6.1.3, step
    /// f).
    fn is_explicit_enough(&self, whose: &str) -> Result<(), String> {
        match self.explicit_policy > 0 || self.any || !self.valid.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "a CA requires a policy that is valid for the whole chain (policyConstraints), but \
                 no such policy is valid for the certificate of {whose}"
            )),
        }
    }

    /// Applies the policy mappings of a certificate (RFC 5280, section 6.1.4, step b).
    fn map(&mut self, said: &PolicyStatement) {
        for (from, _) in &said.mappings {
            self.expected.remove(from);
            if self.policy_mapping == 0 {
                self.valid.remove(from);
            }
        }
        let mapped = said
            .mappings
            .iter()
            .filter(|(from, _)| self.policy_mapping > 0 && (self.any || self.valid.contains(from)));
        self.expected.extend(mapped.map(|(_, to)| *to));
    }

    /// Applies the policy constraints of a certificate (RFC 5280, section 6.1.4, steps i and j).
    fn constrain(&mut self, said: &PolicyStatement) {
        let lower =
            |value: &mut usize, by: Option<usize>| *value = (*value).min(by.unwrap_or(*value));
        lower(
            &mut self.explicit_policy,
            said.constraints.require_explicit_policy,
        );
        lower(
            &mut self.policy_mapping,
            said.constraints.inhibit_policy_mapping,
        );
        lower(&mut self.inhibit_any, said.inhibit_any);
    }
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
