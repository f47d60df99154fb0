//! Numbers of bytes as people write them.

/// A number of bytes: `512M`, `512MiB`, `1G`, `1048576`.
///
/// # Errors
///
/// What to write instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix {
        "" | "B" | "b" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return Err("give a size as in 512M or 2G".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "give a size as in 512M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4096", Ok(4096)),
            ("4096b", Ok(4096)),
            ("1K", Ok(1 << 10)),
            ("512M", Ok(512 << 20)),
            ("512MiB", Ok(512 << 20)),
            ("2G", Ok(2 << 30)),
            ("99999999999G", Err(())),
            ("", Err(())),
            ("M", Err(())),
            ("1T", Ok(1 << 40)),
            ("1P", Err(())),
            ("-1", Err(())),
        ] {
            assert_eq!(parse_size(text).map_err(|_| ()), bytes, "{text}");
        }
    }
}
