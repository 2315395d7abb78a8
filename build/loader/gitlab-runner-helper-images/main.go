// Command gitlab-runner-helper-images puts the helper images that are installed
// on this host into its container engines. See gitlab-runner-helper-images(8).
package main

func main() {}
