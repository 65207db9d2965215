//! Which vector instructions this machine has, asked once.

use std::sync::OnceLock;

/// A set of vector instructions that kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain code, for any machine.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, and all of [`Isa::Avx2`].
    Avx512,
    /// NEON, which every AArch64 has.
    Neon,
}

/// Instructions beyond an [`Isa`] that some kernels can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extensions {
    /// Products of 8-bit integers, AVX-512 VNNI.
    pub avx512_vnni: bool,
    /// Products of bf16, AVX-512 BF16.
    pub avx512_bf16: bool,
    /// Products of 8-bit integers, NEON `dotprod`.
    pub neon_dot: bool,
    /// Matrix products of 8-bit integers, NEON `i8mm`.
    pub neon_i8mm: bool,
}

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Self {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| *Self::available().last().expect("plain code runs everywhere"))
    }

    /// All that this machine has, the best last.
    pub fn available() -> Vec<Self> {
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Neon]
            .into_iter()
            .filter(|isa| isa.is_available())
            .collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        };
        let avx512 = || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        };
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx2() && avx512(),
            Self::Neon => false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        matches!(self, Self::Portable | Self::Neon)
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }
}

impl Extensions {
    /// Those that this machine has.
    pub fn detect() -> Self {
        static EXTENSIONS: OnceLock<Extensions> = OnceLock::new();
        *EXTENSIONS.get_or_init(Self::ask)
    }

    #[cfg(target_arch = "x86_64")]
    fn ask() -> Self {
        Self {
            avx512_vnni: is_x86_feature_detected!("avx512vnni"),
            avx512_bf16: is_x86_feature_detected!("avx512bf16"),
            neon_dot: false,
            neon_i8mm: false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn ask() -> Self {
        use std::arch::is_aarch64_feature_detected;
        Self {
            avx512_vnni: false,
            avx512_bf16: false,
            neon_dot: is_aarch64_feature_detected!("dotprod"),
            neon_i8mm: is_aarch64_feature_detected!("i8mm"),
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn ask() -> Self {
        Self { avx512_vnni: false, avx512_bf16: false, neon_dot: false, neon_i8mm: false }
    }
}

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn plain_code_is_always_there_and_the_best_is_used() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::Portable);
        assert_eq!(available.last(), Some(&Isa::detect()));
    }
}
