// The names that libtorch's ProcessGroupGloo.hpp uses from gloo's headers, which no wheel of libtorch ships.
//
// libtorch itself is linked with gloo. Its header holds gloo's objects by pointer only, so the compiler needs only their
// names, not their size or layout. Functions that the header calls inline or overrides are declared but never called
// here: c10d.cpp creates a ProcessGroupGloo with libtorch's own constructor and uses it as c10d::Backend.
#pragma once
#include <chrono>
#include <string>
#include <vector>

namespace gloo {
class Context {
public:
  void setTimeout(std::chrono::milliseconds timeout);
};
namespace rendezvous {
class Store {
public:
  virtual ~Store();
  virtual void set(const std::string &key, const std::vector<char> &value) = 0;
  virtual std::vector<char> get(const std::string &key) = 0;
  virtual void wait(const std::vector<std::string> &keys) = 0;
  virtual void wait(const std::vector<std::string> &keys, const std::chrono::milliseconds &timeout) = 0;
};
} // namespace rendezvous
namespace transport {
class Device;
class UnboundBuffer {
public:
  virtual ~UnboundBuffer();
};
} // namespace transport
} // namespace gloo
