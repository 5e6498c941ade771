// Memory that is kept between calls: page faults on fresh memory cost more than some kernels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <vector>

namespace splatir {

// Uninitialised, 64-byte aligned array that only ever grows.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable<T>::value, "elements are moved with memcpy");

 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : data_(other.data_), capacity_(other.capacity_) {
    other.data_ = nullptr;
    other.capacity_ = 0;
  }
  ~Buffer() { free(); }

  // Room for `count` elements; what was there is lost if it has to grow.
  // Throws std::bad_alloc.
  T* reserve(size_t count) {
    if (count > capacity_) {
      free();
      allocate(count);
    }
    return data_;
  }

  // Room for `count` elements; the first `used` are kept. Grows geometrically.
  T* extend(size_t used, size_t count) {
    if (count > capacity_) {
      Buffer larger;
      larger.allocate(count > 2 * capacity_ ? count : 2 * capacity_);
      if (used > 0) std::memcpy(larger.data_, data_, used * sizeof(T));
      std::swap(data_, larger.data_);
      std::swap(capacity_, larger.capacity_);
    }
    return data_;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  void allocate(size_t count) {
    // A quarter more, so that a slowly growing scene does not reallocate on every step.
    const size_t capacity = count + count / 4 + 64;
    if (capacity > SIZE_MAX / sizeof(T)) throw std::bad_alloc();
    data_ = static_cast<T*>(::operator new(capacity * sizeof(T), std::align_val_t(64)));
    capacity_ = capacity;
  }
  void free() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t(64));
    data_ = nullptr;
    capacity_ = 0;
  }

  T* data_ = nullptr;
  size_t capacity_ = 0;
};

// Objects whose buffers are worth keeping; at most `kKept` idle ones.
template <class T>
class ObjectPool {
 public:
  // Throws std::bad_alloc.
  T* acquire() {
    std::lock_guard<std::mutex> lock(guard_);
    if (idle_.empty()) return new T;
    T* object = idle_.back().release();
    idle_.pop_back();
    return object;
  }

  void release(T* object) {
    std::unique_ptr<T> owned(object);
    std::lock_guard<std::mutex> lock(guard_);
    if (idle_.size() < kKept) {
      idle_.reserve(kKept);
      idle_.push_back(std::move(owned));
    }
  }

 private:
  static constexpr size_t kKept = 4;
  std::mutex guard_;
  std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace splatir
