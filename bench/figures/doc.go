// Command figures makes tables and pictures of what the benchmarks measured.
package main
