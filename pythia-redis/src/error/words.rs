//! What an error says to its reader: in plain words, and with what to do where Redis, fred and rustls don't say.

/// Where the words of Redis or of fred don't say what to do.
pub(super) fn our_words(details: &str) -> String {
    const NO_SENTINEL: &str = "this is a redis, and no sentinel: begin redis.url with redis://";
    const SAID: [(&str, &str); 5] = [
        (
            "Failed to connect to all sentinel nodes",
            "no sentinel answers: none is up, or they refuse the sentinel_username and sentinel_password in redis.url",
        ),
        (
            "MOVED ",
            "this is a node of a cluster: begin redis.url with redis-cluster://",
        ),
        (
            "Missing primary address",
            "the sentinels know no primary by the name in redis.url",
        ),
        ("ERR unknown command 'SENTINEL'", NO_SENTINEL),
        // Before 7.0.
        ("ERR unknown command `SENTINEL`", NO_SENTINEL),
    ];
    let plain = plain_words(details);
    let known = SAID.iter().find(|(words, _)| {
        plain
            .to_ascii_lowercase()
            .starts_with(&words.to_ascii_lowercase())
    });
    match known {
        Some((_, ours)) => format!("{ours} ({plain})"),
        None => plain,
    }
}

/// fred shows what rustls complains of as an I/O error of invalid data, by its `Debug`.
pub(super) fn tls_words(details: &str) -> Option<String> {
    const SAID: [(&str, &str); 4] = [
        (
            "CertificateRequired",
            "the server wants a client's certificate, set redis.tls.cert_file and redis.tls.key_file",
        ),
        ("Expired", "the server's certificate has expired"),
        (
            "NotValidForName",
            "the server's certificate is for another name than the one in redis.url",
        ),
        (
            "UnknownIssuer",
            "the server's certificate is of an unknown issuer, name its authority in redis.tls.ca_file",
        ),
    ];
    let (_, complaint) = details.split_once("kind: InvalidData, error: ")?;
    let complaint = complaint.trim_end_matches([' ', '}']);
    let words = SAID.iter().find(|(name, _)| complaint.contains(name));
    Some(match words {
        Some((_, words)) => (*words).to_owned(),
        None => complaint.to_owned(),
    })
}

/// fred shows an I/O error by its `Debug`: `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
fn plain_words(details: &str) -> String {
    let quoted = ["message: \"", "error: \""]
        .into_iter()
        .find_map(|before| Some(details.split_once(before)?.1.split_once('"')?.0));
    match quoted {
        Some(words) => words.to_lowercase(),
        None => without_script(details)
            .trim()
            .trim_end_matches('.')
            .to_owned(),
    }
}

/// An error inside a script ends with `script: <sha1>, on @user_script:7.`, which says nothing to whoever has to act on it.
fn without_script(details: &str) -> &str {
    match details.split_once(" script: ") {
        Some((error, place)) if place.contains("@user_script") => error,
        _ => details,
    }
}

#[cfg(test)]
mod tests {
    use crate::error::RedisError;

    #[test]
    fn io_errors_are_shown_in_plain_words() {
        let io = |kind, message: &str| {
            RedisError::from(fred::error::Error::from(std::io::Error::new(
                kind,
                message.to_owned(),
            )))
        };
        let error = io(
            std::io::ErrorKind::Other,
            "failed to lookup address information: Name or service not known",
        );
        assert_eq!(
            error.to_string(),
            "redis is unavailable: failed to lookup address information: name or service not known"
        );
        let refused = fred::error::Error::from(std::io::Error::from_raw_os_error(111));
        assert_eq!(RedisError::from(refused).detail(), "connection refused");
    }

    #[test]
    fn where_in_a_script_an_error_arose_is_left_out() {
        let text = "WRONGTYPE Operation against a key holding the wrong kind of value script: \
            86e3d1a0, on @user_script:68.";
        assert_eq!(
            RedisError::from_reply(text).detail(),
            "WRONGTYPE Operation against a key holding the wrong kind of value"
        );
    }
}
