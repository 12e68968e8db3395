// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/fft.h"

#include "analysis/targetclones.h"

#include <cmath>
#include <numbers>
#include <utility>

namespace spectra::detail {
namespace {

SPECTRA_INLINE void multiplyTo(Lanes &to, const Vector &re, const Vector &im, float c, float s)
{
    to.re = re * c - im * s;
    to.im = re * s + im * c;
}

// Each stage reads x[q + s(p + k m)] and writes y[q + s(R p + k)], so that no bit reversal is needed.

SPECTRA_INLINE void radix2(const Lanes *x, Lanes *y, int m, int s, const float *w, float sign)
{
    for (int p = 0; p < m; ++p, w += 2)
        for (int q = 0; q < s; ++q) {
            const Lanes &a = x[q + s * p], &b = x[q + s * (p + m)];
            Lanes *to = y + q + s * 2 * p;
            to[0].re = a.re + b.re;
            to[0].im = a.im + b.im;
            multiplyTo(to[s], a.re - b.re, a.im - b.im, w[0], sign * w[1]);
        }
}

SPECTRA_INLINE void radix3(const Lanes *x, Lanes *y, int m, int s, const float *w, float sign)
{
    const float half = 0.5f, root = sign * 0.86602540378443864676f;
    for (int p = 0; p < m; ++p, w += 4)
        for (int q = 0; q < s; ++q) {
            const Lanes &a = x[q + s * p], &b = x[q + s * (p + m)], &c = x[q + s * (p + 2 * m)];
            Lanes *to = y + q + s * 3 * p;
            const Vector sumRe = b.re + c.re, sumIm = b.im + c.im;
            const Vector midRe = a.re - half * sumRe, midIm = a.im - half * sumIm;
            const Vector turnRe = root * (b.im - c.im), turnIm = root * (c.re - b.re);
            to[0].re = a.re + sumRe;
            to[0].im = a.im + sumIm;
            multiplyTo(to[s], midRe + turnRe, midIm + turnIm, w[0], sign * w[1]);
            multiplyTo(to[2 * s], midRe - turnRe, midIm - turnIm, w[2], sign * w[3]);
        }
}

SPECTRA_INLINE void radix4(const Lanes *x, Lanes *y, int m, int s, const float *w, float sign)
{
    for (int p = 0; p < m; ++p, w += 6)
        for (int q = 0; q < s; ++q) {
            const Lanes &a = x[q + s * p], &b = x[q + s * (p + m)], &c = x[q + s * (p + 2 * m)],
                        &d = x[q + s * (p + 3 * m)];
            Lanes *to = y + q + s * 4 * p;
            const Vector acRe = a.re + c.re, acIm = a.im + c.im, bdRe = b.re + d.re, bdIm = b.im + d.im;
            const Vector a_cRe = a.re - c.re, a_cIm = a.im - c.im;
            const Vector turnRe = sign * (b.im - d.im), turnIm = sign * (d.re - b.re);
            to[0].re = acRe + bdRe;
            to[0].im = acIm + bdIm;
            multiplyTo(to[s], a_cRe + turnRe, a_cIm + turnIm, w[0], sign * w[1]);
            multiplyTo(to[2 * s], acRe - bdRe, acIm - bdIm, w[2], sign * w[3]);
            multiplyTo(to[3 * s], a_cRe - turnRe, a_cIm - turnIm, w[4], sign * w[5]);
        }
}

SPECTRA_INLINE void radix5(const Lanes *x, Lanes *y, int m, int s, const float *w, float sign)
{
    const float c1 = 0.30901699437494742410f, c2 = -0.80901699437494742410f;
    const float s1 = sign * 0.95105651629515357212f, s2 = sign * 0.58778525229247312917f;
    for (int p = 0; p < m; ++p, w += 8)
        for (int q = 0; q < s; ++q) {
            const Lanes &a = x[q + s * p], &b = x[q + s * (p + m)], &c = x[q + s * (p + 2 * m)],
                        &d = x[q + s * (p + 3 * m)], &e = x[q + s * (p + 4 * m)];
            Lanes *to = y + q + s * 5 * p;
            const Vector beRe = b.re + e.re, beIm = b.im + e.im, cdRe = c.re + d.re, cdIm = c.im + d.im;
            const Vector b_eRe = b.re - e.re, b_eIm = b.im - e.im, c_dRe = c.re - d.re, c_dIm = c.im - d.im;
            const Vector oneRe = a.re + c1 * beRe + c2 * cdRe, oneIm = a.im + c1 * beIm + c2 * cdIm;
            const Vector twoRe = a.re + c2 * beRe + c1 * cdRe, twoIm = a.im + c2 * beIm + c1 * cdIm;
            const Vector turnOneRe = s1 * b_eIm + s2 * c_dIm, turnOneIm = -(s1 * b_eRe + s2 * c_dRe);
            const Vector turnTwoRe = s2 * b_eIm - s1 * c_dIm, turnTwoIm = -(s2 * b_eRe - s1 * c_dRe);
            to[0].re = a.re + beRe + cdRe;
            to[0].im = a.im + beIm + cdIm;
            multiplyTo(to[s], oneRe + turnOneRe, oneIm + turnOneIm, w[0], sign * w[1]);
            multiplyTo(to[2 * s], twoRe + turnTwoRe, twoIm + turnTwoIm, w[2], sign * w[3]);
            multiplyTo(to[3 * s], twoRe - turnTwoRe, twoIm - turnTwoIm, w[4], sign * w[5]);
            multiplyTo(to[4 * s], oneRe - turnOneRe, oneIm - turnOneIm, w[6], sign * w[7]);
        }
}

SPECTRA_CLONES void runStage(int radix, const Lanes *x, Lanes *y, int m, int s, const float *w, float sign)
{
    switch (radix) {
    case 2:
        radix2(x, y, m, s, w, sign);
        break;
    case 3:
        radix3(x, y, m, s, w, sign);
        break;
    case 4:
        radix4(x, y, m, s, w, sign);
        break;
    default:
        radix5(x, y, m, s, w, sign);
        break;
    }
}

} // namespace

BatchFft::BatchFft(int n)
    : m_length(n)
{
    int left = n, stride = 1;
    const auto add = [&](int radix) {
        while (left % radix == 0) {
            Stage stage{radix, left, stride, {}};
            for (int p = 0; p < left / radix; ++p)
                for (int k = 1; k < radix; ++k) {
                    const double angle = -2 * std::numbers::pi * p * k / left;
                    stage.twiddles.push_back(static_cast<float>(std::cos(angle)));
                    stage.twiddles.push_back(static_cast<float>(std::sin(angle)));
                }
            m_stages.push_back(std::move(stage));
            left /= radix;
            stride *= radix;
        }
    };
    for (const int radix : {4, 2, 3, 5})
        add(radix);
}

Lanes *BatchFft::forward(Lanes *x, Lanes *scratch) const
{
    for (const Stage &stage : m_stages) {
        runStage(stage.radix, x, scratch, stage.length / stage.radix, stage.stride, stage.twiddles.data(), 1.0f);
        std::swap(x, scratch);
    }
    return x;
}

Lanes *BatchFft::inverse(Lanes *x, Lanes *scratch) const
{
    for (const Stage &stage : m_stages) {
        runStage(stage.radix, x, scratch, stage.length / stage.radix, stage.stride, stage.twiddles.data(), -1.0f);
        std::swap(x, scratch);
    }
    return x;
}

int BatchFft::nextLength(int n)
{
    for (int length = (n < 8 ? 8 : (n + 7) / 8 * 8);; length += 8) {
        int left = length;
        for (const int f : {2, 3, 5})
            while (left % f == 0)
                left /= f;
        if (left == 1)
            return length;
    }
}

} // namespace spectra::detail
