// Package nft runs the nft program: it applies one transaction and reads tables
// back.
package nft
