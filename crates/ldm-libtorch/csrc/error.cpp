#include "ldm_torch.h"
#include <string>

static thread_local std::string last_error;

// The linker takes an object of a static library only if a symbol of it is needed. cuda.cpp has a constructor, and this file
// is in every program that uses the interface.
__attribute__((used)) static int (*const keep_cuda)(const char **) = ldm_cuda_library;

void ldm::set_error(const char *message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();
  }
}

extern "C" const char *ldm_last_error() { return last_error.c_str(); }
