//! Names as identifiers.

/// Longest slug.
const MAX_SLUG: usize = 64;

/// Lower-case ASCII letters and digits of `name`, every run of anything else as one `separator`; never empty.
pub(crate) fn slug(name: &str, separator: char) -> String {
    let mut slug = String::new();
    for character in name.chars() {
        if slug.len() >= MAX_SLUG {
            break;
        }
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with(separator) {
            slug.push(separator);
        }
    }
    let trimmed = slug.trim_end_matches(separator);
    if trimmed.is_empty() { "unnamed".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn runs_of_other_characters_become_one_separator() {
        assert_eq!(slug("Personal Loans", '_'), "personal_loans");
        assert_eq!(slug("  High-yield  savings! ", '-'), "high-yield-savings");
        assert_eq!(slug("日本", '_'), "unnamed");
        assert!(slug(&"a b".repeat(100), '_').len() <= 64);
    }
}
