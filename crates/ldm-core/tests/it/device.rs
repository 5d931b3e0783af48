//! Devices and dtypes by name.

use ldm_core::Error;
use ldm_core::device::{device_name, parse_device, parse_dtype};
use tch::{Device, Kind};

#[test]
fn names_of_devices() {
    assert_eq!(parse_device("cpu").unwrap(), Device::Cpu);
    for word in ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda: 0", "", "mps"] {
        let error = parse_device(word).unwrap_err();
        assert!(matches!(error, Error::Device(_)));
        let expected = format!("unknown device, expected auto, cpu, cuda or cuda:N: {word}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_and_never_the_cpu() {
    let count = ldm_libtorch::cuda_device_count();
    let beyond = format!("cuda:{count}");
    let message = parse_device(&beyond).unwrap_err().to_string();
    assert!(message.ends_with(&format!("asked for: {beyond}")), "{message}");
    if count == 0 {
        assert!(message.starts_with("no CUDA device works here"), "{message}");
        assert!(parse_device("cuda").is_err());
        assert_eq!(parse_device("auto").unwrap(), Device::Cpu);
    } else {
        assert_eq!(parse_device("cuda").unwrap(), Device::Cuda(0));
        assert_eq!(parse_device("auto").unwrap(), Device::Cuda(0));
    }
    assert!(parse_device("cuda:99999999999999999999").is_err());
}

#[test]
fn names_lead_back() {
    for device in [Device::Cpu, Device::Cuda(3)] {
        assert_eq!(device_name(device), if device == Device::Cpu { "cpu" } else { "cuda:3" });
    }
    let kinds = ["f32", "bf16", "f16"].map(|name| parse_dtype(name).unwrap());
    assert_eq!(kinds, [Kind::Float, Kind::BFloat16, Kind::Half]);
    assert_eq!(
        parse_dtype("fp16").unwrap_err().to_string(),
        "unknown dtype, expected f32, bf16 or f16: fp16"
    );
}
