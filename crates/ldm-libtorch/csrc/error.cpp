#include "ldm_torch.h"
#include <string>

static thread_local std::string last_error;

void ldm::set_error(const char *message) { last_error = message; }

extern "C" const char *ldm_last_error() { return last_error.c_str(); }
