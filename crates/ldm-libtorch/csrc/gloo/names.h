// The names that libtorch's ProcessGroupGloo.hpp takes from gloo's headers, which no wheel of libtorch ships.
//
// libtorch itself is linked to gloo. Its header holds gloo's objects by pointer alone, so a name is all that the
// compiler needs of them: no size and no layout of gloo's is known or used here. What the header calls inline or
// overrides is declared, and never called by us: c10d.cpp makes a ProcessGroupGloo by libtorch's own constructor
// and talks to it as c10d::Backend.
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
