"""Language models made smaller: weights in 4 or 8 bits, by rounding or by GPTQ."""
