//! Devices and dtypes by name.

use ldm_core::Error;
use ldm_core::device::{device_name, parse_device, parse_dtype, resolve_dtype};
use tch::{Device, Kind};

#[test]
fn names_of_devices() {
    assert_eq!(parse_device("cpu").unwrap(), Device::Cpu);
    for word in ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda: 0", "", "mps"] {
        let error = parse_device(word).unwrap_err();
        assert!(matches!(error, Error::Device(_)));
        let expected = format!("device: expected auto, cpu, cuda or cuda:N, got {word}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_missing_gpu_is_an_error() {
    let count = ldm_libtorch::cuda_device_count();
    let beyond = format!("cuda:{count}");
    let message = parse_device(&beyond).unwrap_err().to_string();
    assert!(message.contains(&beyond), "{message}");
    if count == 0 {
        assert!(message.starts_with("device: expected a working CUDA device"), "{message}");
        assert!(parse_device("cuda").is_err());
        assert_eq!(parse_device("auto").unwrap(), Device::Cpu);
    } else {
        assert_eq!(parse_device("cuda").unwrap(), Device::Cuda(0));
        assert_eq!(parse_device("auto").unwrap(), Device::Cuda(0));
    }
    assert!(parse_device("cuda:99999999999999999999").is_err());
}

#[test]
fn auto_is_a_dtype_and_other_names_stay() {
    let auto = resolve_dtype("auto").unwrap();
    assert!(auto == "bf16" || auto == "f32", "{auto}");
    assert_eq!(resolve_dtype("fp16").unwrap(), "fp16"); // `parse_dtype` refuses it
}

#[test]
fn names_round_trip() {
    for device in [Device::Cpu, Device::Cuda(3)] {
        assert_eq!(device_name(device), if device == Device::Cpu { "cpu" } else { "cuda:3" });
    }
    let kinds = ["f32", "bf16", "f16"].map(|name| parse_dtype(name).unwrap());
    assert_eq!(kinds, [Kind::Float, Kind::BFloat16, Kind::Half]);
    assert_eq!(parse_dtype("fp16").unwrap_err().to_string(), "dtype: expected f32, bf16 or f16, got fp16");
}
