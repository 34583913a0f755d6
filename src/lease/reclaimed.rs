//! The state of a lease before it was reclaimed, in its user context.

use super::{JsonRef, LeaseState, UserContext};

const NAMESPACE: &str = "leasemgr";
const RECLAIMED_FROM: &str = "reclaimed-from";

/// Returns the user context of a reclaimed lease, with its former state.
pub(super) fn with_former_state(context: Option<UserContext>, was: LeaseState) -> Option<UserContext> {
    if was == LeaseState::DEFAULT {
        return without_former_state(context?);
    }
    let context = context.unwrap_or_default();
    let path = [NAMESPACE, RECLAIMED_FROM];
    let with_state = context.with(&path, was.0).or_else(|_| context.without(&[NAMESPACE]).with(&path, was.0));
    Some(with_state.unwrap_or(context))
}

/// Returns the former state in a user context.
pub(super) fn former_state(context: &UserContext) -> Option<LeaseState> {
    let number = context.get(NAMESPACE)?.get(RECLAIMED_FROM)?.as_u64()?;
    u32::try_from(number).ok().map(LeaseState)
}

/// Returns the user context without a former state.
fn without_former_state(context: UserContext) -> Option<UserContext> {
    if former_state(&context).is_none() {
        return Some(context);
    }
    let is_empty = |map: JsonRef<'_>| map.as_map().is_some_and(|mut members| members.next().is_none());
    let mut context = context.without(&[NAMESPACE, RECLAIMED_FROM]);
    if context.get(NAMESPACE).is_some_and(is_empty) {
        context = context.without(&[NAMESPACE]);
    }
    (!is_empty(context.root())).then_some(context)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::lease::{HwAddr, Lease4, Lease6, LeaseState, UserContext, system_time};

    fn lease(state: LeaseState, context: Option<&str>) -> Lease4 {
        let context = context.map(|text| UserContext::parse(text.as_bytes()).unwrap());
        let builder = Lease4::builder([192, 0, 2, 1].into()).client(HwAddr::from([2, 0, 0, 0, 0, 1]));
        builder.state(state).user_context(context).build().unwrap()
    }

    #[rstest]
    #[case::assigned(LeaseState::DEFAULT, None, None)]
    #[case::assigned_with_context(
        LeaseState::DEFAULT,
        Some(r#"{ "leasemgr": { "x": 1 } }"#),
        Some(r#"{ "leasemgr": { "x": 1 } }"#)
    )]
    #[case::assigned_with_empty_context(LeaseState::DEFAULT, Some("{  }"), Some("{  }"))]
    #[case::assigned_with_former_state(
        LeaseState::DEFAULT,
        Some(r#"{ "leasemgr": { "reclaimed-from": 3 } }"#),
        None
    )]
    #[case::released(LeaseState::RELEASED, None, Some(r#"{ "leasemgr": { "reclaimed-from": 3 } }"#))]
    #[case::offered_with_context(
        LeaseState::OFFERED,
        Some(r#"{ "ISC": {  }, "leasemgr": { "reclaimed-from": 3, "x": 1 } }"#),
        Some(r#"{ "ISC": {  }, "leasemgr": { "reclaimed-from": 128, "x": 1 } }"#)
    )]
    #[case::replaces_a_number(
        LeaseState(200),
        Some(r#"{ "leasemgr": 3 }"#),
        Some(r#"{ "leasemgr": { "reclaimed-from": 200 } }"#)
    )]
    fn a_reclaimed_lease_keeps_its_former_state(
        #[case] was: LeaseState,
        #[case] before: Option<&str>,
        #[case] after: Option<&str>,
    ) {
        let mut lease = lease(was, before);
        let client = lease.client();
        assert_eq!(lease.reclaimed_from(), None);
        lease.reclaim();
        assert_eq!((lease.state(), lease.reclaimed_from()), (LeaseState::EXPIRED_RECLAIMED, Some(was)));
        assert_eq!(lease.user_context().map(UserContext::as_str), after);
        assert_eq!(lease.client(), client);
        let once = lease.clone();
        lease.reclaim();
        assert_eq!(lease, once);
    }

    #[test]
    fn a_declined_lease_is_reclaimed_without_a_client() {
        let mut lease = lease(LeaseState::DEFAULT, None);
        lease.decline(system_time(1000), 60.into());
        lease.reclaim();
        assert_eq!((lease.client(), lease.reclaimed_from()), (None, Some(LeaseState::DECLINED)));
        let mut lease = Lease6::declined("2001:db8::1".parse().unwrap()).build().unwrap();
        lease.reclaim();
        assert_eq!((lease.duid().is_empty(), lease.reclaimed_from()), (true, Some(LeaseState::DECLINED)));
    }

    #[test]
    fn a_lease_that_was_reclaimed_elsewhere_was_assigned_or_declined() {
        assert_eq!(lease(LeaseState::EXPIRED_RECLAIMED, None).reclaimed_from(), Some(LeaseState::DEFAULT));
        let declined = Lease4::declined([192, 0, 2, 1].into()).state(LeaseState::EXPIRED_RECLAIMED);
        assert_eq!(declined.build().unwrap().reclaimed_from(), Some(LeaseState::DECLINED));
    }
}
