//! Where a network is trained: on the processor, or on a graphics card through burn's backends for CUDA and for wgpu
//! (Vulkan, Metal, DirectX 12).
//!
//! The processor is always there and gives the same bits on every run. A card adds in another order, and which order may
//! depend on what its driver finds fastest: a network trained there is as good, but not bit for bit repeatable. So the device
//! is part of a [`TrainingConfig`](crate::TrainingConfig).
//!
//! Backends for cards are compiled with the cargo features `cuda` and `wgpu`; which of them is used is said at run time.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a network is trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The processor: the same bits on every run.
    #[default]
    Cpu,
    /// The first NVIDIA card, with CUDA; needs a build with `--features cuda`.
    Cuda,
    /// The best card that Vulkan, Metal or DirectX 12 offers; needs a build with `--features wgpu`.
    Wgpu,
}

impl Device {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::Wgpu];

    /// Its name as a parameter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
        }
    }

    /// Whether this program was compiled with its backend.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Wgpu => cfg!(feature = "wgpu"),
        }
    }

    /// The device of burn.
    ///
    /// # Errors
    /// If its backend was not compiled in, or the machine has no such device.
    pub(crate) fn open(self) -> Result<burn::tensor::Device, DeviceError> {
        match self {
            Self::Cpu => Ok(burn::tensor::Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda => self.first(burn::tensor::DeviceType::Cuda, || burn::tensor::Device::cuda(0)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => self.first(burn::tensor::DeviceType::Wgpu, || {
                burn::tensor::Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
            }),
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            _ => Err(DeviceError::NotBuiltIn { device: self }),
        }
    }

    /// The device, if the machine lists one of its kind.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn first(
        self,
        kind: burn::tensor::DeviceType,
        device: impl FnOnce() -> burn::tensor::Device,
    ) -> Result<burn::tensor::Device, DeviceError> {
        // Where not even the driver's library is there, the backends panic instead of listing nothing.
        let listed = std::panic::catch_unwind(|| burn::tensor::Device::enumerate(kind).len());
        match listed {
            Ok(1..) => Ok(device()),
            _ => Err(DeviceError::NotThere { device: self }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a device cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// This program has no backend for it.
    #[error(
        "this ecgpipe was built without `{device}`; build it with `cargo build --release --features {device}`, or train on \
         the processor (`--device cpu`)"
    )]
    NotBuiltIn {
        /// Which one.
        device: Device,
    },
    /// The machine has none.
    #[error(
        "no device for `{device}` was found on this machine: {}; train on the processor (`--device cpu`)",
        match device {
            Device::Cuda => "is there an NVIDIA card, its driver and CUDA's NVRTC library (`nvidia-smi` lists cards)?",
            _ => "is there a driver for Vulkan, Metal or DirectX 12 (`vulkaninfo --summary` lists those of Vulkan)?",
        }
    )]
    NotThere {
        /// Which one.
        device: Device,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_there_or_says_what_to_do() {
        for device in Device::ALL {
            match device.open() {
                Ok(_) => assert!(device.is_built_in()),
                Err(error) => {
                    assert_ne!(device, Device::Cpu);
                    let text = error.to_string();
                    assert!(text.contains(device.name()) && text.contains("--device cpu"), "{text}");
                    assert_eq!(matches!(error, DeviceError::NotBuiltIn { .. }), !device.is_built_in());
                }
            }
        }
    }
}
