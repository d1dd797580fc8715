//! Serial shipping container codes.
//!
//! Source: GS1 General Specifications, SSCC (AI 00): 18 digits, an extension digit, a GS1 company
//! prefix and serial reference of 16 digits together, and a mod-10 check digit.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

use super::ids::Malformed;

/// An SSCC-18 with a correct check digit, kept as its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sscc(u64);

impl Sscc {
    /// Builds the code of carton `serial` under a company prefix of 7 to 10 digits.
    ///
    /// `serial` fills the digits that the prefix leaves and then the extension digit, so a
    /// 7-digit prefix names 10^10 cartons before it repeats.
    #[must_use]
    pub fn build(prefix: CompanyPrefix, serial: u64) -> Sscc {
        let reference = 10u64.pow(16 - prefix.digits);
        let extension = serial / reference % 10;
        let body = extension * 10u64.pow(16) + prefix.number * reference + serial % reference;
        Sscc(body * 10 + check_digit(body))
    }
}

impl fmt::Display for Sscc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:018}", self.0)
    }
}

impl FromStr for Sscc {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("an SSCC is 18 digits, the last of them the check digit");
        if s.len() != 18 || !s.bytes().all(|b| b.is_ascii_digit()) {
            return Err(WRONG);
        }
        let number: u64 = s.parse().map_err(|_| WRONG)?;
        if check_digit(number / 10) == number % 10 { Ok(Sscc(number)) } else { Err(WRONG) }
    }
}

/// A GS1 company prefix, 7 to 10 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompanyPrefix {
    number: u64,
    digits: u32,
}

impl FromStr for CompanyPrefix {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("a GS1 company prefix is 7 to 10 digits");
        let digits = u32::try_from(s.len()).map_err(|_| WRONG)?;
        if !(7..=10).contains(&digits) || !s.bytes().all(|b| b.is_ascii_digit()) {
            return Err(WRONG);
        }
        Ok(CompanyPrefix { number: s.parse().map_err(|_| WRONG)?, digits })
    }
}

/// GS1 mod-10: from the right, digits weigh 3, 1, 3, … .
fn check_digit(mut body: u64) -> u64 {
    let (mut sum, mut weight) = (0, 3);
    while body > 0 {
        sum += body % 10 * weight;
        weight = 4 - weight;
        body /= 10;
    }
    (10 - sum % 10) % 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_examples_carry_the_right_check_digit() {
        // GS1's own worked example, and the one of the GS1 US guide to the SSCC.
        for good in ["106141412345678908", "376104250021234569"] {
            assert_eq!(good.parse::<Sscc>().unwrap().to_string(), good);
        }
        for bad in ["106141412345678907", "37610425002123456", "37610425002123456x", ""] {
            assert!(bad.parse::<Sscc>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_company_prefix_follows_the_extension_digit() {
        let prefix: CompanyPrefix = "0614141".parse().unwrap();
        assert_eq!(&Sscc::build(prefix, 234_567_890).to_string()[..17], "00614141234567890");
        assert_eq!(&Sscc::build(prefix, 1_234_567_890).to_string()[..17], "10614141234567890");
        assert_eq!(Sscc::build(prefix, 1_234_567_890).to_string(), "106141412345678908");
    }
}
