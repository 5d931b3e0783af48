#include "ldm_torch.h"
#include <string>

static thread_local std::string last_error;

void ldm::set_error(const char *message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();
  }
}

extern "C" const char *ldm_last_error() { return last_error.c_str(); }
