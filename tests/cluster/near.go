// Asks for a service as Go programs do, twenty times, and prints each answer in the order in which it was given.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	for range [20]int{} {
		_, found, err := net.LookupSRV(os.Args[1], "tcp", os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, one := range found {
			fmt.Printf("%d:%s ", one.Priority, one.Target)
		}
		fmt.Println()
	}
}
