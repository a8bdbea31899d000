# SPDX-License-Identifier: MPL-2.0
"""Training of small Video-LLMs on worlds that paint themselves: what every world needs."""
