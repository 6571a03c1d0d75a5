//! Numbers of users and groups, by their names.

/// Returns the names and numbers in passwd(5) or group(5). The function asks no name service,
/// because a rescue system has no name service.
fn numbered(file: &str) -> Vec<(String, u32)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let parsed = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    });
    parsed.collect()
}

fn name_in(file: &str, number: u32) -> Option<String> {
    let mut all = numbered(file).into_iter();
    all.find(|one| one.1 == number).map(|one| one.0)
}

pub(crate) fn group_name(number: u32) -> Option<String> {
    name_in("/etc/group", number)
}

pub(crate) fn user_name(number: u32) -> String {
    name_in("/etc/passwd", number).unwrap_or_else(|| number.to_string())
}

pub(crate) fn group_number(name: &str) -> Option<u32> {
    let mut all = numbered("/etc/group").into_iter();
    all.find(|one| one.0 == name).map(|one| one.1)
}

pub(crate) fn user_named(name: &str) -> Option<u32> {
    let mut all = numbered("/etc/passwd").into_iter();
    all.find(|one| one.0 == name).map(|one| one.1)
}
