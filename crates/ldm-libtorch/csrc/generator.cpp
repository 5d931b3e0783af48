#include "ldm_torch.h"
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

static at::Generator &generator_of(void *generator) { return *static_cast<at::Generator *>(generator); }

static at::TensorOptions options_of(int dtype) {
  return at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype)).device(at::kCPU);
}

extern "C" {
int ldm_generator_new(uint64_t seed, void **out) {
  return ldm::guarded([&] { *out = new at::Generator(at::make_generator<at::CPUGeneratorImpl>(seed)); });
}

void ldm_generator_free(void *generator) { delete static_cast<at::Generator *>(generator); }

int ldm_generator_randn(void *generator, const int64_t *size, size_t dims, int dtype, tensor *out) {
  return ldm::guarded([&] {
    *out = new at::Tensor(at::randn(at::IntArrayRef(size, dims), generator_of(generator), options_of(dtype)));
  });
}

int ldm_generator_rand(void *generator, const int64_t *size, size_t dims, int dtype, tensor *out) {
  return ldm::guarded([&] {
    *out = new at::Tensor(at::rand(at::IntArrayRef(size, dims), generator_of(generator), options_of(dtype)));
  });
}

int ldm_generator_randint(void *generator, int64_t high, const int64_t *size, size_t dims, tensor *out) {
  return ldm::guarded([&] {
    *out = new at::Tensor(
        at::randint(high, at::IntArrayRef(size, dims), generator_of(generator), options_of((int)at::kLong)));
  });
}
}
